"""A trained encoder as a package that pip builds into a wheel.

The package holds what differs from a published encoder, in few bits a number, and an entry point
by which ``load_encoder`` finds it. Everything in its folder is written by ``write_package``: a new
encoder is a new version, made by the same command.
"""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clrelkt.encoders import MuseEncoder, TrainableEncoder
from clrelkt.encoders.description import DESCRIPTION_FILE
from clrelkt.encoders.installed import GROUP
from clrelkt.encoders.protocol import SaveForm
from clrelkt.encoders.storage import save_muse
from clrelkt.errors import EncoderError, SettingsError, StorageError
from clrelkt.files import atomic_folder, storage_errors

__all__ = ["PackageSettings", "encoder_folder", "write_package"]

Bits = Literal[4, 6, 8]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_VERSION = re.compile(r"\d+(\.\d+)*")
_FORMS: dict[int, SaveForm] = {4: "delta-int4", 6: "delta-int6", 8: "delta-int8"}

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{distribution}"
version = "{version}"
description = "The encoder {name} for clrelkt, a cross-lingual retriever"
readme = "README.md"
requires-python = ">=3.11"
license = "{licence}"
dependencies = ["clrelkt>={clrelkt}"]

[project.entry-points."{group}"]
{name} = "{module}:folder"

[tool.setuptools.packages.find]
where = ["src"]

[tool.setuptools.package-data]
"*" = ["py.typed", "encoder/*"]
"""

_MODULE = '''\
"""The encoder {name}; clrelkt.load_encoder("{name}") finds it."""

from pathlib import Path

__all__ = ["folder"]


def folder() -> Path:
    """Return the folder of the encoder."""
    return Path(__file__).parent / "encoder"
'''

_CARD = """\
# {name}

{weights}, trained further with clrelkt. Languages: {languages}.

Install this package, then use the name wherever clrelkt asks for an encoder:

    clrelkt evaluate {name} bundled

Only what differs from the published encoder {base!r} is in the package, rounded to {bits} bits a
number. Licence: {licence}.
"""


@dataclass(frozen=True, slots=True)
class PackageSettings:
    """What the package is called and how closely it keeps the numbers.

    ``name`` is the encoder's; the package is ``clrelkt-NAME``. ``card``, Markdown, is its readme:
    what the encoder was trained on, how good it is, and the licences of the data. ``licence`` is an
    SPDX expression.
    """

    name: str
    version: str = "1.0.0"
    bits: Bits = 6
    card: str | None = None
    licence: str = "Apache-2.0"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SettingsError(
                f"name {self.name!r}: lower-case words and numbers with hyphens between them "
                "expected, for example muse-xquad"
            )
        if not _VERSION.fullmatch(self.version):
            raise SettingsError(f"version {self.version!r}: numbers and dots expected, as 1.0.0")
        if self.bits not in _FORMS:
            raise SettingsError(f"bits {self.bits}: 4, 6 or 8 expected")

    @property
    def distribution(self) -> str:
        """What pip calls the package."""
        return f"clrelkt-{self.name}"

    @property
    def module(self) -> str:
        """What Python calls it."""
        return self.distribution.replace("-", "_")


def write_package(encoder: TrainableEncoder, folder: Path, settings: PackageSettings) -> None:
    """Write the source of the package to ``folder``, all of it or nothing.

    ``pip wheel --no-deps FOLDER`` makes the wheel. A package that is there is replaced.

    Raises:
        EncoderError: the encoder is not mUSE's, or its base is not a published one.
        StorageError: it could not be written, or ``folder`` holds something else.
    """
    if not isinstance(encoder, MuseEncoder):
        raise EncoderError(f"{encoder.name}: only mUSE's encoders can be packaged in few bits")
    with storage_errors(folder):
        known = any(folder.glob(f"src/*/encoder/{DESCRIPTION_FILE}"))
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not known):
            raise StorageError(
                f"{folder} is there and is no package of an encoder: writing would remove it. "
                "Name another folder"
            )
    words = {
        "name": settings.name,
        "distribution": settings.distribution,
        "module": settings.module,
        "version": settings.version,
        "licence": settings.licence,
        "clrelkt": importlib.metadata.version("clrelkt"),
        "group": GROUP,
        "bits": settings.bits,
        "base": encoder.identity.base,
        "weights": encoder.weights,
        "languages": " ".join(sorted(encoder.languages)),
    }
    with atomic_folder(folder) as target:
        (target / "pyproject.toml").write_text(_PYPROJECT.format(**words), encoding="utf-8")
        card = settings.card or _CARD.format(**words)
        (target / "README.md").write_text(card, encoding="utf-8")
        module = target / "src" / settings.module
        module.mkdir(parents=True)
        (module / "__init__.py").write_text(_MODULE.format(**words), encoding="utf-8")
        (module / "py.typed").touch()
        save_muse(encoder, module / "encoder", _FORMS[settings.bits])


def encoder_folder(package: Path, settings: PackageSettings) -> Path:
    """Return where the encoder lies in the source of a package."""
    return package / "src" / settings.module / "encoder"
