"""Text to unit vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clrelkt.encoders.description import DESCRIPTION_FILE, read_description
from clrelkt.encoders.installed import (
    best_encoder,
    installed_encoders,
    installed_folder,
    known_as,
)
from clrelkt.encoders.muse.encoder import MUSE_LANGUAGES, MuseEncoder
from clrelkt.encoders.protocol import Encoder, SaveForm, TextKind, TrainableEncoder
from clrelkt.encoders.published import PUBLISHED, load_published
from clrelkt.encoders.ragged import RaggedBatch
from clrelkt.encoders.storage import load_muse, save_muse
from clrelkt.encoders.transformer.options import TransformerOptions
from clrelkt.errors import EncoderError, SettingsError, UnknownNameError

if TYPE_CHECKING:
    from clrelkt.encoders.transformer.encoder import TransformerEncoder

__all__ = [
    "MUSE_LANGUAGES",
    "PUBLISHED",
    "Encoder",
    "MuseEncoder",
    "RaggedBatch",
    "SaveForm",
    "TextKind",
    "TrainableEncoder",
    "TransformerOptions",
    "best_encoder",
    "installed_encoders",
    "load_encoder",
    "load_muse",
    "save_muse",
]


def load_encoder(
    name_or_folder: str | Path, options: TransformerOptions | None = None
) -> MuseEncoder | TransformerEncoder:
    """Return an encoder by name or from the folder that holds it.

    Names are ``muse``, ``muse-8bit``, ``best`` (``best_encoder``), those of encoders that installed
    packages bring (``installed_encoders``), and those of the model hub; folders are those that
    clrelkt, sentence-transformers or Hugging Face's transformers saved. ``options`` are for
    transformers.

    Raises:
        UnknownNameError: neither a known name nor a folder, nor given out by the hub.
        EncoderError: the folder is no encoder, or its weights are not here.
        SettingsError: options for mUSE, or options that the model cannot have.
        MissingExtraError: a transformer, and what reads it is not installed.
    """
    name = known_as(str(name_or_folder))
    folder = Path(name)
    if name in PUBLISHED or _kind(folder) == "muse":
        if options is not None:
            raise SettingsError(f"{name} is mUSE, and options are for transformers")
        return load_published(name) if name in PUBLISHED else load_muse(folder)
    installed = None if folder.is_dir() else installed_folder(name)
    if installed is not None:
        return load_encoder(installed, options).renamed(name)
    from clrelkt.encoders.transformer.loading import (
        fetch_from_hub,
        is_hub_name,
        is_model_folder,
        load_transformer,
    )

    if folder.is_dir():
        if not is_model_folder(folder):
            raise EncoderError(
                f"{folder} is no encoder: it has neither {DESCRIPTION_FILE}, modules.json nor "
                "config.json"
            )
        return load_transformer(folder, options)
    if not is_hub_name(name) or isinstance(name_or_folder, Path):
        raise UnknownNameError(
            f"no encoder {name!r}: it is neither a folder nor one of "
            f"{', '.join((*PUBLISHED, *installed_encoders()))}"
        )
    fetched = fetch_from_hub(name, options)
    if _kind(fetched) == "muse":
        return load_muse(fetched).renamed(name)
    return load_transformer(fetched, options, name=name)


def _kind(folder: Path) -> str | None:
    if not (folder / DESCRIPTION_FILE).is_file():
        return None
    return str(read_description(folder)["kind"])
