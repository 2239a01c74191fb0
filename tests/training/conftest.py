"""What tests of training share beside the tiny corpus and encoder."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from clrelkt.corpora import Corpus, split_corpus
from clrelkt.encoders import MuseEncoder
from clrelkt.training.bank import TextBank, texts_of
from clrelkt.training.stage_method import Material

SmallFiles = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def small_files() -> SmallFiles:
    """Return ``small_files(bytes)``: in its block no file can grow longer, as on a full disk."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


MakeMaterial = Callable[..., Material]


@pytest.fixture
def make_material(tiny_corpus: Corpus, tiny_encoder: MuseEncoder) -> MakeMaterial:
    """Return ``make_material(languages)``: the tiny corpus's training questions, ready to mine."""

    def make(*languages: str, corpus: Corpus | None = None, seed: int = 0) -> Material:
        train_side = split_corpus(corpus or tiny_corpus).train
        bank = TextBank(*texts_of([corpus or tiny_corpus]), tiny_encoder)
        questions = train_side.in_languages(languages).questions
        return Material(train_side, questions, bank, tiny_encoder, seed, 0)

    return make
