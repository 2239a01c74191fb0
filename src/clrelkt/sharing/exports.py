"""Encoders in forms that other tools open."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np

from clrelkt.encoders import MuseEncoder, TrainableEncoder, load_encoder
from clrelkt.encoders.description import DESCRIPTION_FILE
from clrelkt.encoders.muse.onnx_encoder import OnnxWeights, muse_graph
from clrelkt.encoders.protocol import Encoder, TextKind
from clrelkt.encoders.storage import save_muse
from clrelkt.encoders.transformer.encoder import TransformerEncoder
from clrelkt.errors import EncoderError, MissingExtraError, StorageError
from clrelkt.files import atomic_folder, storage_errors, write_json, write_text
from clrelkt.sharing.onnx_encoder import GRAPH_FILE, PIECES_FILE, OnnxEncoder
from clrelkt.sharing.transformer_onnx import KIND, TransformerOnnxEncoder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = [
    "CARD_FILE",
    "EXPORT_FORMS",
    "TRANSFORMER_FORMS",
    "ExportForm",
    "export_encoder",
    "open_export",
    "open_onnx",
]

ExportForm = Literal[
    "sentence-transformers",
    "onnx",
    "onnx-int8",
    "safetensors-fp16",
    "delta-int8",
    "delta-int6",
    "delta-int4",
]
"""What an encoder is exported to.

- ``sentence-transformers``: a folder that SentenceTransformer opens, with clrelkt or without;
- ``onnx``, ``onnx-int8``: a graph that onnxruntime runs without PyTorch;
- ``safetensors-fp16``: clrelkt's own form, whole, in half the size;
- ``delta-int8``, ``-int6``, ``-int4``: what differs from the published base, in so many bits a
  number; small enough to travel in a package.
"""

TRANSFORMER_FORMS: tuple[ExportForm, ...] = ("sentence-transformers", "onnx", "onnx-int8")
"""What a transformer can be exported to."""

CARD_FILE = "README.md"
_GRAPHS: Mapping[ExportForm, OnnxWeights] = MappingProxyType(
    {"onnx": "float32", "onnx-int8": "int8"}
)
_MODULE_FILE = Path(__file__).with_name("muse_module.py")


def export_encoder(
    encoder: TrainableEncoder, folder: Path, form: ExportForm, *, card: str | None = None
) -> None:
    """Write ``encoder`` to ``folder`` in another form, all of it or nothing.

    ``card`` is a model card, Markdown, to be written beside it.

    Raises:
        EncoderError: the form cannot hold this encoder.
        MissingExtraError: a package that the form needs is not installed.
        StorageError: it could not be written, or ``folder`` holds something else.
    """
    _refuse_other_content(folder)
    if isinstance(encoder, MuseEncoder):
        _WRITERS[form](encoder, folder)
    elif isinstance(encoder, TransformerEncoder) and form in _GRAPHS:
        from clrelkt.sharing.transformer_graph import write_transformer_onnx

        write_transformer_onnx(encoder, folder, _GRAPHS[form], card=card)
        return  # Its card says how the graph is run.
    elif form == "sentence-transformers":
        encoder.save(folder)  # A transformer's own form.
    else:
        raise EncoderError(
            f"{encoder.name} cannot be exported to {form}, which is for mUSE; transformers can to "
            f"{', '.join(TRANSFORMER_FORMS)}"
        )
    if card is not None:
        write_text(folder / CARD_FILE, card)


def open_export(folder: Path, form: ExportForm) -> Encoder:
    """Open an export with the tool that it was made for.

    Raises:
        EncoderError: the folder is no such export.
        MissingExtraError: the tool is not installed.
    """
    if form in _GRAPHS:
        return open_onnx(folder)
    if form == "sentence-transformers":
        return _OpenedElsewhere(load_encoder(folder), _sentence_transformer(folder))
    return load_encoder(folder)


def open_onnx(folder: Path, *, threads: int | None = None) -> Encoder:
    """Open the ONNX export of mUSE or of a transformer; ``threads`` as with ``OnnxEncoder``.

    Raises:
        EncoderError: the folder is no such export.
        MissingExtraError: onnxruntime is not installed.
    """
    try:
        found = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None  # OnnxEncoder tells what is wrong.
    if isinstance(found, dict) and found.get("kind") == KIND:
        return TransformerOnnxEncoder.open(folder, threads=threads)
    return OnnxEncoder.open(folder, threads=threads)


def _refuse_other_content(folder: Path) -> None:
    with storage_errors(folder):
        known = (folder / DESCRIPTION_FILE).is_file()
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not known):
            raise StorageError(
                f"{folder} is there and is no encoder: exporting would remove it. "
                "Name another folder"
            )


def _write_sentence_transformers(encoder: MuseEncoder, folder: Path) -> None:
    from clrelkt.encoders.storage import write_muse_files, write_sentence_transformers_files

    with atomic_folder(folder) as target:
        write_muse_files(encoder, target, "whole")
        write_sentence_transformers_files(target, module="muse_module.MuseSentenceEncoder")
        shutil.copyfile(_MODULE_FILE, target / _MODULE_FILE.name)


def _write_onnx(encoder: MuseEncoder, folder: Path, weights: OnnxWeights) -> None:
    graph = muse_graph(encoder, weights)
    description = {
        "format": 1,
        "kind": "muse-onnx",
        "form": weights,
        "base": encoder.identity.base,
        "weights": encoder.weights,
        "languages": sorted(encoder.languages),
        "dimension": encoder.dimension,
    }
    with atomic_folder(folder) as target:
        (target / GRAPH_FILE).write_bytes(graph.SerializeToString())
        (target / PIECES_FILE).write_bytes(encoder.tokenizer.model)
        write_json(target / DESCRIPTION_FILE, description)


_WRITERS: Mapping[ExportForm, Callable[[MuseEncoder, Path], None]] = MappingProxyType(
    {
        "sentence-transformers": _write_sentence_transformers,
        "onnx": lambda encoder, folder: _write_onnx(encoder, folder, "float32"),
        "onnx-int8": lambda encoder, folder: _write_onnx(encoder, folder, "int8"),
        "safetensors-fp16": lambda encoder, folder: save_muse(encoder, folder, "whole-float16"),
        "delta-int8": lambda encoder, folder: save_muse(encoder, folder, "delta-int8"),
        "delta-int6": lambda encoder, folder: save_muse(encoder, folder, "delta-int6"),
        "delta-int4": lambda encoder, folder: save_muse(encoder, folder, "delta-int4"),
    }
)

EXPORT_FORMS: tuple[ExportForm, ...] = tuple(_WRITERS)
"""Every form, in the order in which they are listed."""


def _sentence_transformer(folder: Path) -> SentenceTransformer:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtraError("sentence-transformers", "sentence-transformers") from error
    # The code in the folder is the file of this package that the export copied there.
    return SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)


class _OpenedElsewhere:
    """An encoder whose vectors are those of a SentenceTransformer (Encoder)."""

    def __init__(self, encoder: Encoder, model: SentenceTransformer) -> None:
        self.name = encoder.name
        self.weights = encoder.weights
        self.dimension = encoder.dimension
        self.languages = encoder.languages
        self._model = model

    def encode(
        self, texts: Sequence[str], kind: TextKind = "passage", *, progress: bool = False
    ) -> np.ndarray:
        """Return unit vectors, shape (texts, dimension), float32."""
        found = self._model.encode(list(texts), show_progress_bar=progress)
        return np.asarray(found, dtype=np.float32)
