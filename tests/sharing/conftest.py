"""A small encoder with mUSE's own widths and tokenizer, quick to export."""

from __future__ import annotations

import io

import pytest
import sentencepiece
import torch

from clrelkt.encoders import MuseEncoder
from clrelkt.encoders.identity import EncoderIdentity
from clrelkt.encoders.muse.encoder import MuseNetwork
from clrelkt.encoders.tokenizer import SentencePieceTokenizer

LINES = ["the cat sat on the mat", "a dog ran after the cat", "Where did the river begin?"]


@pytest.fixture(scope="session")
def small_encoder(muse: MuseEncoder) -> MuseEncoder:
    """MUSE with the first 60 rows of its table, for a tokenizer of as many pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 20),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    tensors = {name: tensor.detach() for name, tensor in muse.network.named_parameters()}
    rows = torch.arange(100, 160)
    return MuseEncoder(
        MuseNetwork(tensors | {"embedding": tensors["embedding"][rows]}),
        SentencePieceTokenizer(model.getvalue()),
        EncoderIdentity("small", "small", "some of mUSE", frozenset(("de", "en"))),
    )
