"""Text to unit vectors."""

from __future__ import annotations

from pathlib import Path

from clrelkt.encoders.muse import MUSE_LANGUAGES, MuseEncoder
from clrelkt.encoders.protocol import Encoder, SaveForm, TextKind, TrainableEncoder
from clrelkt.encoders.published import PUBLISHED, load_published
from clrelkt.encoders.ragged import RaggedBatch
from clrelkt.encoders.storage import load_muse, save_muse
from clrelkt.errors import UnknownNameError

__all__ = [
    "MUSE_LANGUAGES",
    "PUBLISHED",
    "Encoder",
    "MuseEncoder",
    "RaggedBatch",
    "SaveForm",
    "TextKind",
    "TrainableEncoder",
    "load_encoder",
    "save_muse",
]


def load_encoder(name_or_folder: str | Path) -> MuseEncoder:
    """Return an encoder by name (``muse``, ``muse-8bit``) or from the folder it was saved to.

    Raises:
        UnknownNameError: neither a known name nor a folder.
        EncoderError: the folder is no encoder, or its weights are not here.
    """
    if str(name_or_folder) in PUBLISHED:
        return load_published(str(name_or_folder))
    folder = Path(name_or_folder)
    if not folder.is_dir():
        raise UnknownNameError(
            f"no encoder {str(name_or_folder)!r}: it is neither a folder nor one of "
            f"{', '.join(PUBLISHED)}"
        )
    return load_muse(folder)
