"""mUSE as an ONNX graph that onnxruntime runs without PyTorch.

Inputs are ragged, as everywhere here: ``token_ids`` of shape (tokens,) and ``lengths`` of shape
(texts,), both int64, with the begin and end marks that SentencePiece puts around each text. The
output ``sentence_embedding`` has shape (texts, 512), unit vectors in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from clrelkt.encoders.muse.encoder import LAYER_NORM_EPSILON, MuseEncoder
from clrelkt.encoders.muse.forward import BRANCH_WIDTH, BRANCHES, GAP
from clrelkt.errors import EncoderError, MissingExtraError

if TYPE_CHECKING:
    import onnx

__all__ = ["OPSET", "OnnxWeights", "muse_graph"]

OnnxWeights = Literal["float32", "int8"]
"""How the graph keeps its weights; it computes in float32 either way."""

OPSET = 17
"""The version of ONNX's operators: the first with LayerNormalization, so that old runtimes do."""

_IR_VERSION = 8
_LEVELS = 127


def muse_graph(encoder: MuseEncoder, weights: OnnxWeights = "float32") -> onnx.ModelProto:
    """Return the graph of ``encoder``.

    With ``int8`` every matrix is stored in 8 bits, with a scale for each output column, and so is
    each row of the embedding table: a quarter of the size. Activations stay in float32, because
    rounding them costs far more accuracy than rounding weights does.

    Raises:
        MissingExtraError: the package ``onnx`` is not installed.
        EncoderError: the encoder has a compact vocabulary.
    """
    if encoder.tokenizer.rows is not None:
        raise EncoderError("an encoder with a compact vocabulary has no graph: write it back first")
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx") from error
    tensors = {
        name: parameter.detach().float().cpu().numpy()
        for name, parameter in encoder.network.named_parameters()
    }
    graph = _Graph(onnx, weights)
    output = _encode(graph, tensors)
    int64, float32 = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    return onnx.helper.make_model(
        onnx.helper.make_graph(
            [*graph.nodes, onnx.helper.make_node("Identity", [output], ["sentence_embedding"])],
            "muse",
            [
                onnx.helper.make_tensor_value_info("token_ids", int64, ["tokens"]),
                onnx.helper.make_tensor_value_info("lengths", int64, ["texts"]),
            ],
            [
                onnx.helper.make_tensor_value_info(
                    "sentence_embedding", float32, ["texts", encoder.dimension]
                )
            ],
            graph.stored,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="clrelkt",
    )


class _Graph:
    """Nodes and stored arrays, under names that count up."""

    def __init__(self, onnx: Any, weights: OnnxWeights) -> None:
        self.nodes: list[Any] = []
        self.stored: list[Any] = []
        self._onnx = onnx
        self._int8 = weights == "int8"

    def __call__(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator; return the name of its output."""
        output = f"{kind}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def store(self, array: np.ndarray) -> str:
        name = f"stored_{len(self.stored)}"
        self.stored.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def integers(self, *values: int) -> str:
        return self.store(np.array(values, dtype=np.int64))

    def integer(self, value: int) -> str:
        return self.store(np.array(value, dtype=np.int64))

    def filled(self, shape: str, value: float, kind: str = "FLOAT") -> str:
        """Add an array of one value; ``shape`` names a row of int64."""
        number = getattr(self._onnx.TensorProto, kind)
        return self(
            "ConstantOfShape", shape, value=self._onnx.helper.make_tensor("", number, [1], [value])
        )

    def cast(self, value: str, kind: str) -> str:
        return self("Cast", value, to=getattr(self._onnx.TensorProto, kind))

    def matrix(self, array: np.ndarray, output_axis: int) -> str:
        """Store a matrix or a kernel, in 8 bits where that is asked for."""
        if not self._int8:
            return self.store(array)
        others = tuple(axis for axis in range(array.ndim) if axis != output_axis)
        codes, scale = _eight_bits(array, others)
        scales = self.store(scale.reshape(-1))
        zeros = self.store(np.zeros(scale.size, np.int8))
        return self("DequantizeLinear", self.store(codes), scales, zeros, axis=output_axis)

    def table_rows(self, table: np.ndarray, numbers: str) -> str:
        """Look up rows of a table, shape (numbers, width), in float32."""
        if not self._int8:
            return self("Gather", self.store(table), numbers)
        codes, scale = _eight_bits(table, (1,))
        found = self.cast(self("Gather", self.store(codes), numbers), "FLOAT")
        return self("Mul", found, self("Gather", self.store(scale), numbers))


def _eight_bits(array: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 codes and their scales; ``axes`` share a scale."""
    scale = np.abs(array).max(axis=axes, keepdims=True) / _LEVELS
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.rint(array / scale).astype(np.int8), scale


def _encode(graph: _Graph, tensors: dict[str, np.ndarray]) -> str:
    lengths = "lengths"
    tokens = graph("Shape", "token_ids")
    ends = graph("CumSum", lengths, graph.integer(0))
    text_number = _text_numbers(graph, tokens, graph("Sub", ends, lengths))
    # As in forward.py: GAP rows of zeros stand before, between and behind the texts.
    place = graph("Range", graph.integer(0), graph("Squeeze", tokens), graph.integer(1))
    place = graph("Add", place, graph("Mul", text_number, graph.integer(GAP)))
    place = graph("Unsqueeze", place, graph.integers(1))
    gaps = graph(
        "Mul", graph("Add", graph("Shape", lengths), graph.integers(1)), graph.integer(GAP)
    )
    rows = graph("Add", tokens, gaps)

    embedded = graph.table_rows(tensors["embedding"], "token_ids")
    branches = [
        _branch(graph, tensors, index, embedded, place, rows) for index in range(len(BRANCHES))
    ]
    normal = graph(
        "LayerNormalization",
        graph("Concat", embedded, *branches, axis=1),
        graph.store(tensors["token_gain"]),
        graph.store(tensors["token_bias"]),
        epsilon=LAYER_NORM_EPSILON,
    )
    count = graph("Unsqueeze", graph.cast(lengths, "FLOAT"), graph.integers(1))
    summed = graph(
        "Add",
        graph("MatMul", _sum_texts(graph, normal, ends), graph.matrix(tensors["token_linear"], 1)),
        graph("Mul", count, graph.store(tensors["token_linear_bias"])),
    )
    return _residual_layers(graph, tensors, graph("Div", summed, graph("Sqrt", count)))


def _text_numbers(graph: _Graph, tokens: str, starts: str) -> str:
    """Number each token's text, from 1, shape (tokens,)."""
    begins = graph(
        "ScatterElements",
        graph.filled(tokens, 0, "INT64"),
        starts,
        graph.filled(graph("Shape", starts), 1, "INT64"),
    )
    return graph("CumSum", begins, graph.integer(0))


def _branch(
    graph: _Graph,
    tensors: dict[str, np.ndarray],
    index: int,
    embedded: str,
    place: str,
    rows: str,
) -> str:
    """Project, normalise and convolve twice, shape (tokens, 256)."""
    size, left = BRANCHES[index]
    own = slice(index * BRANCH_WIDTH, (index + 1) * BRANCH_WIDTH)
    projected = graph(
        "Add",
        graph("MatMul", embedded, graph.matrix(tensors["projection"][:, own], 1)),
        graph.store(tensors["projection_bias"][own]),
    )
    normal = graph(
        "LayerNormalization",
        projected,
        graph.store(tensors["branch_gain"][own]),
        graph.store(tensors["branch_bias"][own]),
        epsilon=LAYER_NORM_EPSILON,
    )
    for layer in (1, 2):
        kernel = tensors[f"convolution_{layer}_window_{size}"].transpose(2, 1, 0)
        laid_out = graph("ScatterND", _blank(graph, rows), place, normal)
        channels = graph("Unsqueeze", graph("Transpose", laid_out), graph.integers(0))
        convolved = graph(
            "Conv",
            channels,
            graph.matrix(kernel, 0),
            graph.store(tensors[f"convolution_bias_{layer}"][own]),
            pads=[left, size - 1 - left],
        )
        found = graph("Transpose", graph("Squeeze", convolved, graph.integers(0)))
        normal = graph("Add", graph("Relu", graph("GatherND", found, place)), normal)
    return normal


def _blank(graph: _Graph, rows: str) -> str:
    return graph.filled(graph("Concat", rows, graph.integers(BRANCH_WIDTH), axis=0), 0.0)


def _sum_texts(graph: _Graph, rows: str, ends: str) -> str:
    """Sum the rows of each text, shape (texts, width).

    As differences of a running sum, which float64 keeps exact enough. Scattering with addition
    would say the same, but onnxruntime loses summands where it scatters with several threads.
    """
    running = graph("CumSum", graph.cast(rows, "DOUBLE"), graph.integer(0))
    until = graph("Gather", running, graph("Sub", ends, graph.integer(1)))
    shape = graph("Shape", graph("Slice", until, graph.integers(0), graph.integers(1)))
    before = graph(
        "Concat",
        graph.filled(shape, 0.0, "DOUBLE"),
        graph("Slice", until, graph.integers(0), graph.integers(-1)),
        axis=0,
    )
    return graph.cast(graph("Sub", until, before), "FLOAT")


def _residual_layers(graph: _Graph, tensors: dict[str, np.ndarray], text: str) -> str:
    def product(left: str, name: str) -> str:
        return graph("MatMul", left, graph.matrix(tensors[name], 1))

    first = graph("Relu", product(text, "hidden_0"))
    second = graph("Relu", graph("Add", product(text, "shortcut_1"), product(first, "hidden_1")))
    third = graph("Relu", product(second, "hidden_2"))
    fourth = graph("Add", product(second, "shortcut_3"), product(third, "hidden_3"))
    return graph("LpNormalization", graph("Tanh", fourth), axis=1, p=2)
