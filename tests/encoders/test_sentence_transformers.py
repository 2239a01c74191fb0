"""Saved encoders opened by sentence-transformers; the vectors must be the encoder's own."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from clrelkt.encoders import MuseEncoder, load_encoder

with warnings.catch_warnings():
    # What the library and those that it imports warn about is not this project's to mend.
    warnings.simplefilter("ignore")
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer

    from clrelkt.encoders.sentence_transformers import MuseModule, to_sentence_transformer

pytestmark = [
    pytest.mark.filterwarnings(rf"ignore:::{library}(\..*)?")
    for library in ("sentence_transformers", "transformers", "huggingface_hub")
]

TEXTS = ["Where is the river?", "", "Wo liegt der Fluss?", "สวัสดีครับ", "word " * 700]


@pytest.fixture(scope="module")
def trained(muse: MuseEncoder) -> MuseEncoder:
    compact = muse.compact(muse.tokenize(TEXTS).token_ids)
    with torch.no_grad():
        compact.network.embedding.mul_(1.1)
        compact.network.hidden_0.add_(0.01)
    return muse.write_back(compact)


@pytest.fixture(scope="module", params=["whole", "delta"])
def folder(
    request: pytest.FixtureRequest, trained: MuseEncoder, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder: Path = tmp_path_factory.mktemp("stored") / request.param
    trained.save(folder, form=request.param)
    return folder


def assert_same_vectors(model: SentenceTransformer, encoder: MuseEncoder) -> None:
    np.testing.assert_allclose(model.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6, rtol=0)


def test_a_saved_encoder_opens_by_its_folder(folder: Path, trained: MuseEncoder) -> None:
    model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    assert_same_vectors(model, trained)
    assert model.get_embedding_dimension() == 512
    assert model.similarity_fn_name == "cosine"


def test_it_can_be_saved_there_and_loaded_here(
    folder: Path, trained: MuseEncoder, tmp_path: Path
) -> None:
    SentenceTransformer(str(folder), device="cpu", trust_remote_code=True).save(str(tmp_path))
    loaded = load_encoder(tmp_path)
    assert np.array_equal(loaded.encode(TEXTS), trained.encode(TEXTS))
    again = SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True)
    assert_same_vectors(again, trained)


def test_to_sentence_transformer_takes_an_encoder(muse: MuseEncoder) -> None:
    assert_same_vectors(to_sentence_transformer(muse).cpu(), muse)


def test_to_sentence_transformer_takes_a_name(muse: MuseEncoder) -> None:
    assert_same_vectors(to_sentence_transformer("muse").cpu(), muse)


def test_to_sentence_transformer_takes_a_folder(folder: Path, trained: MuseEncoder) -> None:
    assert_same_vectors(to_sentence_transformer(folder).cpu(), trained)


def test_a_prompt_stands_before_the_text(muse: MuseEncoder) -> None:
    model = to_sentence_transformer(muse).cpu()
    prompted = model.encode(["river"], prompt="the long ")
    np.testing.assert_allclose(prompted, muse.encode(["the long river"]), atol=1e-6, rtol=0)


def test_it_can_be_trained(small_encoder: MuseEncoder) -> None:
    module = MuseModule(small_encoder)
    features = module(module.preprocess(["the cat", "a dog"]))
    features["sentence_embedding"][:, 0].sum().backward()
    gradient = small_encoder.network.hidden_3.grad
    small_encoder.zero_grad()
    assert gradient is not None
    assert gradient.abs().sum() > 0
