"""mUSE against the published ONNX graph, run by onnxruntime.

The graph quantises its activations to 8 bits. Here every quantised matrix product of it is put
back as the product with the dequantised matrix, so that both sides compute with the same numbers;
all else is the graph's own. Its tokenizer, an operator that onnxruntime lacks, is replaced by the
graph inputs ``tokens`` and ``splits``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clrelkt.encoders import MuseEncoder

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("sentencepiece")

import onnx
import onnxruntime
import sentencepiece

QUESTIONS = {
    "ar": "كم عدد سكان مدينة القاهرة في عام 2006؟",
    "de": "Wie viele Einwohner hatte die Stadt Köln im Jahr 1900?",
    "el": "Ποιος ήταν ο πρώτος κυβερνήτης της Ελλάδας;",  # noqa: RUF001
    "en": "Which river flows through the centre of the old town?",
    "es": "¿En qué año se construyó el puente más largo del país?",
    "hi": "भारत का सबसे लंबा पुल किस नदी पर बना है?",
    "ro": "Cine a scris prima istorie a orașului București?",
    "ru": "Сколько лет строилась железная дорога до Владивостока?",
    "th": "แม่น้ำสายใดไหลผ่านกรุงเทพมหานคร",
    "tr": "İstanbul'un fethi hangi yılda gerçekleşti?",  # noqa: RUF001
    "vi": "Thành phố nào là thủ đô cũ của Việt Nam?",
    "zh": "长城最早是在哪个朝代修建的？",  # noqa: RUF001
}
SHORT = ["", "a", "?", "水", " ", "\n", "hello", "42", "🎉", "👩‍🚀🏳️‍🌈 ok", "<s></s>", "é"]


class FloatGraph:
    """The ONNX graph with its matrix products in float."""

    def __init__(self, path: Path) -> None:
        model = onnx.load(str(path))
        tokenizer = next(
            node for node in model.graph.node if node.op_type == "SentencepieceTokenizer"
        )
        pieces = next(item.s for item in tokenizer.attribute if item.name == "model")
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=pieces)
        nodes = [node for node in _float_products(model.graph) if node is not tokenizer]
        self._tokens, self._splits = tokenizer.output
        del model.graph.node[:], model.graph.input[:]
        model.graph.node.extend(nodes)
        int32, int64 = onnx.TensorProto.INT32, onnx.TensorProto.INT64
        model.graph.input.extend(
            onnx.helper.make_tensor_value_info(name, kind, [None])
            for name, kind in ((self._tokens, int32), (self._splits, int64))
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, shape (texts, 512)."""
        marks = self._processor.bos_id(), self._processor.eos_id()
        ids = [[marks[0], *self._processor.encode(text), marks[1]] for text in texts]
        splits = np.cumsum([0] + [len(text) for text in ids])
        tokens = np.array([token for text in ids for token in text], np.int32)
        (vectors,) = self._session.run(None, {self._tokens: tokens, self._splits: splits})
        return np.asarray(vectors)


def _float_products(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the graph's nodes with each quantised product put back as one MatMul."""
    stored = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    by_output = {name: node for node in graph.node for name in node.output}
    dropped: set[str] = set()
    products: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        cast = by_output.get(node.input[0]) if node.op_type == "Mul" else None
        product = by_output.get(cast.input[0]) if cast is not None and cast.input else None
        if cast is None or product is None or product.op_type != "MatMulInteger":
            continue
        rows, matrix, _, zero_point = product.input
        quantise = by_output[rows]
        scales = by_output[node.input[1]]
        (scale,) = [name for name in scales.input if name in stored]
        name = f"{matrix}_float"
        value = (stored[matrix].astype(np.float32) - np.float32(stored[zero_point])) * stored[scale]
        graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
        products[node.output[0]] = onnx.helper.make_node(
            "MatMul", [quantise.input[0], name], list(node.output)
        )
        for gone in (cast, product, quantise, scales):
            dropped.update(gone.output)
    assert len(products) == 16
    return [
        products.get(node.output[0], node) for node in graph.node if node.output[0] not in dropped
    ]


@pytest.fixture(scope="module")
def graph(muse_8bit_file: Path) -> FloatGraph:
    return FloatGraph(muse_8bit_file)


def assert_same_vectors(encoder: MuseEncoder, graph: FloatGraph, texts: Sequence[str]) -> None:
    ours, theirs = encoder.encode(texts), graph.encode(texts)
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape == (len(texts), 512)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1.0, atol=1e-6)
    cosines = (ours.astype(np.float64) * theirs).sum(1)
    assert cosines.min() >= 0.999_99, dict(zip(texts, cosines, strict=True))


@pytest.mark.parametrize("language", QUESTIONS)
def test_question_in_every_language(
    muse_8bit: MuseEncoder, graph: FloatGraph, language: str
) -> None:
    assert_same_vectors(muse_8bit, graph, [QUESTIONS[language]])


@pytest.mark.parametrize("text", SHORT)
def test_short_text_alone(muse_8bit: MuseEncoder, graph: FloatGraph, text: str) -> None:
    assert_same_vectors(muse_8bit, graph, [text])


def test_batch_of_texts_of_all_lengths(muse_8bit: MuseEncoder, graph: FloatGraph) -> None:
    texts = [*SHORT, *QUESTIONS.values(), " ".join(QUESTIONS.values()) * 9, *SHORT]
    assert_same_vectors(muse_8bit, graph, texts)


def test_text_of_twenty_thousand_tokens(muse_8bit: MuseEncoder, graph: FloatGraph) -> None:
    sentence = " ".join(QUESTIONS.values())
    text = " ".join(f"{number} {sentence}" for number in range(130))
    assert muse_8bit.tokenize([text]).tokens >= 20_000
    assert_same_vectors(muse_8bit, graph, [text])


@pytest.mark.parametrize("language", QUESTIONS)
def test_xquad_texts(
    muse_8bit: MuseEncoder, graph: FloatGraph, data_folder: Path, language: str
) -> None:
    stored = json.loads((data_folder / "xquad" / f"xquad.{language}.json").read_text("utf-8"))
    paragraphs = [article["paragraphs"][0] for article in stored["data"][:8]]
    questions = [paragraph["qas"][0]["question"] for paragraph in paragraphs]
    contexts = [paragraph["context"] for paragraph in paragraphs]
    assert_same_vectors(muse_8bit, graph, questions + contexts)


def test_batching_does_not_change_a_vector(muse: MuseEncoder) -> None:
    texts = [*SHORT, *QUESTIONS.values(), " ".join(QUESTIONS.values()) * 20, "", "hello"]
    alone = np.concatenate([muse.encode([text]) for text in texts])
    np.testing.assert_allclose(muse.encode(texts), alone, atol=1e-5, rtol=0)
    np.testing.assert_allclose(muse.encode(texts[::-1]), alone[::-1], atol=1e-5, rtol=0)
