"""A small encoder, quick to save and to load."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import sentencepiece
import torch

from clrelkt.encoders import MuseEncoder
from clrelkt.encoders.identity import EncoderIdentity
from clrelkt.encoders.muse.encoder import MUSE_LANGUAGES, MuseNetwork
from clrelkt.encoders.tokenizer import SentencePieceTokenizer

MakeTensors = Callable[..., dict[str, torch.Tensor]]

EMBEDDING, TEXT, VECTOR = 6, 7, 5


@pytest.fixture(scope="session")
def make_tensors() -> MakeTensors:
    """Return ``make_tensors(rows, seed)``: mUSE's tensors at random, float64.

    The embedding and the last layers are narrower than mUSE's: vectors have 5 numbers.
    """

    def make(rows: int, seed: int = 0) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, scale: float) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale

        tensors = {
            "embedding": normal(rows, EMBEDDING, scale=1),
            "projection": normal(EMBEDDING, 768, scale=0.4),
            "projection_bias": normal(768, scale=0.2),
            "branch_gain": 1 + normal(768, scale=0.1),
            "branch_bias": normal(768, scale=0.2),
            "convolution_bias_1": normal(768, scale=0.2),
            "convolution_bias_2": normal(768, scale=0.2),
            "token_gain": 1 + normal(EMBEDDING + 768, scale=0.1),
            "token_bias": normal(EMBEDDING + 768, scale=0.1),
            "token_linear": normal(EMBEDDING + 768, TEXT, scale=0.04),
            "token_linear_bias": normal(TEXT, scale=1),
            "hidden_0": normal(TEXT, 9, scale=0.3),
            "hidden_1": normal(9, 8, scale=0.3),
            "hidden_2": normal(8, 9, scale=0.3),
            "hidden_3": normal(9, VECTOR, scale=0.3),
            "shortcut_1": normal(TEXT, 8, scale=0.3),
            "shortcut_3": normal(8, VECTOR, scale=0.3),
        }
        for size in (2, 3, 5):
            for layer in (1, 2):
                tensors[f"convolution_{layer}_window_{size}"] = normal(
                    size, 256, 256, scale=(256 * size) ** -0.5
                )
        return tensors

    return make


@pytest.fixture(scope="session")
def small_encoder(make_tensors: MakeTensors) -> MuseEncoder:
    """A random encoder of 40 pieces. Mind that all tests share it."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat", "a dog ran after the cat"] * 20),
        model_writer=model,
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    tokenizer = SentencePieceTokenizer(model.getvalue())
    tensors = {name: value.float() for name, value in make_tensors(40).items()}
    return MuseEncoder(
        MuseNetwork(tensors),
        tokenizer,
        EncoderIdentity("small", "small", "made at random", MUSE_LANGUAGES),
    )
