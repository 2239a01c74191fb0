"""The ONNX graph, run by onnxruntime, against the PyTorch network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clrelkt.encoders import MuseEncoder
from clrelkt.encoders.muse.onnx_encoder import OnnxWeights, muse_graph
from clrelkt.encoders.ragged import RaggedBatch
from clrelkt.errors import EncoderError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime

TEXTS = [
    "",
    "a",
    "Where is the river?",
    "สวัสดีครับ",
    "长城最早是在哪个朝代修建的",
    "word " * 900,
    "<s></s>",
]


def session(encoder: MuseEncoder, weights: OnnxWeights) -> onnxruntime.InferenceSession:
    graph = muse_graph(encoder, weights)
    onnx.checker.check_model(graph, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


@pytest.fixture(scope="module")
def graph(muse: MuseEncoder) -> onnxruntime.InferenceSession:
    return session(muse, "float32")


def run(graph: onnxruntime.InferenceSession, batch: RaggedBatch) -> np.ndarray:
    inputs = {"token_ids": batch.token_ids.numpy(), "lengths": batch.lengths.numpy()}
    (vectors,) = graph.run(["sentence_embedding"], inputs)
    return np.asarray(vectors)


def test_vectors_are_the_encoders(muse: MuseEncoder, graph: onnxruntime.InferenceSession) -> None:
    found = run(graph, muse.tokenize(TEXTS))
    # The long text is a sum over 900 tokens, which versions of the runtime add up in other orders.
    np.testing.assert_allclose(found, muse.encode(TEXTS), atol=1e-5, rtol=0)


def test_neighbours_in_a_batch_do_not_matter(
    muse: MuseEncoder, graph: onnxruntime.InferenceSession
) -> None:
    alone = np.concatenate([run(graph, muse.tokenize([text])) for text in TEXTS])
    for texts, expected in ((TEXTS, alone), (TEXTS[::-1], alone[::-1])):
        np.testing.assert_allclose(run(graph, muse.tokenize(texts)), expected, atol=2e-6, rtol=0)


def test_a_large_batch_loses_no_summand(
    muse: MuseEncoder, graph: onnxruntime.InferenceSession
) -> None:
    # Runtimes that add up from several threads at once lose some now and then.
    texts = [f"{number} {'river ' * (number % 40)}" for number in range(1500)]
    batch = muse.tokenize(texts)
    expected = muse.encode(texts)
    for _ in range(2):
        np.testing.assert_allclose(run(graph, batch), expected, atol=5e-6, rtol=0)


def test_eight_bits_stay_close_in_a_quarter_of_the_size(
    muse: MuseEncoder, graph: onnxruntime.InferenceSession
) -> None:
    small = session(muse, "int8")
    assert muse_graph(muse, "int8").ByteSize() < 0.26 * muse_graph(muse).ByteSize()
    batch = muse.tokenize(TEXTS)
    cosines = (run(small, batch).astype(np.float64) * muse.encode(TEXTS)).sum(1)
    # From version 1.32 on the runtime rounds the rows that it multiplies to eight bits as well.
    assert 0.995 <= cosines.min() < 0.999_999


def test_a_compact_vocabulary_is_refused(muse: MuseEncoder) -> None:
    with pytest.raises(EncoderError, match="write it back first"):
        muse_graph(muse.compact(torch.arange(10)))
