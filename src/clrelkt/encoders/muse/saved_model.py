"""Google's original mUSE: its TensorFlow SavedModel or checkpoint, read with TensorFlow.

The variables are found by their names, whatever lies around them, so that nothing of the graph has
to be run and no operator of ``tensorflow_text`` is needed.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clrelkt.encoders.muse.weights import (
    MuseWeights,
    joined_table,
    read_npz,
    tensors_of_variables,
)
from clrelkt.errors import EncoderError, MissingExtraError

__all__ = ["MUSE_BASE", "read_saved_model"]

MUSE_BASE = "universal-sentence-encoder-multilingual-3"
"""What the base of a converted encoder is called."""

_ENCODER = re.compile(r"(?:^|/)EncoderDNN/(.+?)(?::0)?$")
_KNOWN = re.compile(r"(?:CNN_layers|DNN)/")
_PROJECTION = "CNN_layers/ngram_order_2/input_size_projection/dense/kernel"
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_NUMBERS = re.compile(r"\d+")
_LEAST_MODEL_BYTES = 500


def read_saved_model(path: Path, *, sentencepiece: Path | None = None) -> MuseWeights:
    """Read the weights of mUSE version 3 from a SavedModel's folder or a checkpoint's prefix.

    The SentencePiece model is the file ``sentencepiece`` where that is given, else the one in the
    SavedModel's graph or among its assets, else that of the installed package of mUSE's weights.

    Raises:
        MissingExtraError: TensorFlow is not installed.
        EncoderError: there is no such model at ``path``, or it is another one.
    """
    variables = _Variables(path)
    tensors = tensors_of_variables(joined_table(variables.chunks()), variables.read, variables.read)
    for name, tensor in tensors.items():
        if not np.isfinite(tensor.numpy()).all():
            raise EncoderError(f"{path}: {name} holds values that are no numbers")
    pieces = _pieces(path, sentencepiece)
    digest = hashlib.sha256(tensors["embedding"].numpy().data).hexdigest()[:12]
    return MuseWeights(tensors, pieces, f"converted from TensorFlow (table {digest})")


class _Variables:
    """The variables of a checkpoint, by their names behind ``EncoderDNN/``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = _open_checkpoint(path)
        self._keys: dict[str, str] = {}
        for name, key in _names(self._reader):
            match = _ENCODER.search(name)
            if match:
                self._keys[match.group(1)] = key
        if not self._keys:
            raise EncoderError(
                f"{path}: no variable is named EncoderDNN/…; mUSE version 3 expected, which is "
                "universal-sentence-encoder-multilingual/3"
            )
        if not any(name.startswith("CNN_layers/") for name in self._keys):
            raise EncoderError(
                f"{path}: has no CNN_layers, so this is not mUSE version 3 but another Universal "
                "Sentence Encoder; the transformer of the large one cannot be converted"
            )

    def read(self, name: str) -> np.ndarray:
        """Return a variable, float32."""
        if name not in self._keys:
            raise EncoderError(f"{self._path}: the variable EncoderDNN/{name} is missing")
        return np.asarray(self._reader.get_tensor(self._keys[name]), dtype=np.float32)

    def chunks(self) -> list[np.ndarray]:
        """Return the chunks of the embedding table, in the order of the numbers in their names.

        They are what has rows as long as the first projection expects and is no layer's.
        """
        width = self.read(_PROJECTION).shape[0]
        shapes = self._reader.get_variable_to_shape_map()
        names = [
            name
            for name, key in self._keys.items()
            if not _KNOWN.match(name) and len(shapes[key]) == 2 and shapes[key][1] == width
        ]
        names.sort(key=lambda name: ([int(number) for number in _NUMBERS.findall(name)], name))
        chunks = [self.read(name) for name in names]
        heights = {chunk.shape[0] for chunk in chunks}
        if len(heights) != 1:
            raise EncoderError(
                f"{self._path}: the embedding table should be in chunks of one shape, rows by "
                f"{width}; found {len(chunks)} of {sorted(heights)} rows"
            )
        return chunks


def _open_checkpoint(path: Path) -> Any:
    tensorflow = _tensorflow()
    prefix = path / "variables" / "variables" if path.is_dir() else path
    if path.is_dir() and not prefix.with_suffix(".index").is_file():
        found = tensorflow.train.latest_checkpoint(str(path))
        if found is None:
            raise EncoderError(
                f"{path} is neither a SavedModel (no variables/variables.index) nor a folder of "
                "checkpoints"
            )
        prefix = Path(found)
    try:
        return tensorflow.train.load_checkpoint(str(prefix))
    except Exception as error:  # TensorFlow's own errors have no common root.
        raise EncoderError(f"{prefix}: no checkpoint that TensorFlow reads ({error})") from error


def _tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return importlib.import_module("tensorflow")
    except ImportError as error:
        raise MissingExtraError("tensorflow", "tensorflow") from error


def _names(reader: Any) -> Iterator[tuple[str, str]]:
    """Yield each variable's name and the key that it is stored under."""
    keys = reader.get_variable_to_shape_map()
    if _OBJECT_GRAPH not in keys:
        # A checkpoint of TensorFlow 1: keys are names.
        yield from ((key, key) for key in keys)
        return
    protos = importlib.import_module("tensorflow.core.protobuf.trackable_object_graph_pb2")
    graph = protos.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor(_OBJECT_GRAPH))
    for node in graph.nodes:
        for attribute in node.attributes:
            if attribute.full_name and attribute.checkpoint_key in keys:
                yield attribute.full_name, attribute.checkpoint_key


def _pieces(path: Path, named: Path | None) -> bytes:
    if named is not None:
        try:
            return named.read_bytes()
        except OSError as error:
            raise EncoderError(f"{named}: cannot be read ({error.strerror})") from error
    if (path / "saved_model.pb").is_file():
        found = _pieces_of_graph(path / "saved_model.pb")
        if found is not None:
            return found
        for asset in sorted((path / "assets").glob("*")):
            if asset.suffix == ".model" or "sentencepiece" in asset.name:
                return asset.read_bytes()
    return read_npz().sentencepiece


def _pieces_of_graph(path: Path) -> bytes | None:
    """Return the model that a SentencePiece operator of the graph carries, if there is one."""
    protos = importlib.import_module("tensorflow.core.protobuf.saved_model_pb2")
    saved = protos.SavedModel()
    try:
        saved.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, wherever this version keeps it.
        raise EncoderError(f"{path}: is no SavedModel ({error})") from error
    for graph in (meta.graph_def for meta in saved.meta_graphs):
        functions = (node for function in graph.library.function for node in function.node_def)
        for node in (*graph.node, *functions):
            attributes: Mapping[str, Any] = node.attr
            model = attributes["model"].s if "model" in attributes else b""
            if "sentencepiece" in node.op.lower() and len(model) >= _LEAST_MODEL_BYTES:
                return bytes(model)
    return None
