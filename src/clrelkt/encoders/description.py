"""``clrelkt.json``, which says what kind of encoder a folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from clrelkt.encoders.protocol import SaveForm, TrainableEncoder
from clrelkt.errors import EncoderError, SettingsError, StorageError
from clrelkt.files import storage_errors

__all__ = [
    "DESCRIPTION_FILE",
    "FORMAT",
    "KINDS",
    "check_folder",
    "check_form",
    "chosen_form",
    "read_description",
]

FORMAT = 3
DESCRIPTION_FILE = "clrelkt.json"
KINDS = ("muse", "transformer")


def chosen_form(encoder: TrainableEncoder, form: SaveForm | None) -> SaveForm:
    """Return ``form``, or the encoder's first one where none is given.

    Raises:
        SettingsError: the encoder cannot be saved so.
    """
    if form is None:
        return encoder.save_forms[0]
    if form not in encoder.save_forms:
        raise SettingsError(
            f"save form {form!r}: {encoder.name} has no published base that a delta could be of. "
            f"Use {' or '.join(encoder.save_forms)}, or name none"
        )
    return form


def check_form(encoder: TrainableEncoder, form: SaveForm) -> None:
    """Refuse a form that ``encoder`` cannot be saved in.

    Raises:
        EncoderError: it is one.
    """
    try:
        chosen_form(encoder, form)
    except SettingsError as error:
        raise EncoderError(str(error)) from error


def check_folder(folder: Path) -> None:
    """Tell, before any work is done, whether an encoder can be written to ``folder``.

    Raises:
        StorageError: it holds something else.
    """
    with storage_errors(folder):
        free = not folder.exists() or (folder / DESCRIPTION_FILE).is_file()
        if not free and (folder.is_file() or any(folder.iterdir())):
            raise StorageError(
                f"{folder} is there and is no encoder: saving would remove it. Name another folder"
            )


def read_description(folder: Path) -> dict[str, Any]:
    """Return what the folder's ``clrelkt.json`` says.

    Raises:
        EncoderError: it is missing, damaged, of a newer format or of an unknown kind.
    """
    path = folder / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise EncoderError(
            f"{folder} is no encoder: {DESCRIPTION_FILE} cannot be read ({error})"
        ) from error
    if not isinstance(description, dict) or not isinstance(description.get("format"), int):
        raise EncoderError(f"{path}: no format version; this is no encoder that clrelkt saved")
    if description["format"] > FORMAT:
        raise EncoderError(
            f"{path}: format {description['format']}, but this clrelkt reads up to {FORMAT}; "
            "install a newer clrelkt"
        )
    for key, kind in (
        ("kind", str),
        ("form", str),
        ("base", str),
        ("weights", str),
        ("languages", list),
    ):
        if not isinstance(description.get(key), kind):
            raise EncoderError(
                f"{path}: {key} is {description.get(key)!r}, expected a {kind.__name__}"
            )
    if description["kind"] not in KINDS:
        graph = description["kind"].endswith("-onnx")
        advice = "; clrelkt.sharing.open_onnx opens exported graphs" if graph else ""
        raise EncoderError(f"{path}: kind {description['kind']!r} is not known here{advice}")
    if description["form"] not in get_args(SaveForm):
        raise EncoderError(
            f"{path}: form {description['form']!r}, expected one of {', '.join(get_args(SaveForm))}"
        )
    return description
