from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import pytest

from clrelkt.corpora.model import Corpus, Document, Passage, Question
from clrelkt.encoders.protocol import TextKind
from clrelkt.text import IcuWords


class WordHashEncoder:
    """A real, tiny encoder: every word is a random direction that its checksum decides."""

    name = "words"
    weights = "crc32"
    dimension = 64
    languages = frozenset({"de", "en"})

    def __init__(self) -> None:
        self.encoded: Counter[tuple[str, str]] = Counter()

    def encode(
        self, texts: Sequence[str], kind: TextKind = "passage", *, progress: bool = False
    ) -> np.ndarray:
        self.encoded.update((text, kind) for text in texts)
        rows = np.array([self._sum(words) for words in IcuWords().words(texts)])
        unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit.astype(np.float32)

    def _sum(self, words: Sequence[str]) -> np.ndarray:
        total = np.full(self.dimension, 1e-3)
        for word in words:
            total += np.random.default_rng(crc32(word.encode())).standard_normal(self.dimension)
        return total


def document(name: str, *texts: str) -> Document:
    passages = tuple(Passage(f"{name}#{number}", name, text) for number, text in enumerate(texts))
    return Document(name, name, passages)


def question(language: str, number: int, text: str, gold: str) -> Question:
    document_id = gold.partition("#")[0]
    return Question(
        f"{language}:{number}", language, text, document_id, gold, (), f"parallel-{number}"
    )


@pytest.fixture
def encoder() -> WordHashEncoder:
    return WordHashEncoder()


@pytest.fixture
def corpus() -> Corpus:
    """Three documents; German questions are searched in two of them."""
    documents = (
        document("bees", "bees make honey", "the queen lays eggs all summer long"),
        document("bears", "bears love honey and salmon", "winter sleep lasts for months"),
        document("iron", "iron is a metal", "rust is red"),
    )
    questions = (
        question("en", 0, "bees make honey", "bees#0"),
        question("en", 1, "winter sleep", "bears#1"),
        question("en", 2, "red rust", "iron#1"),
        question("de", 0, "bees honey", "bees#0"),
        question("de", 1, "bees make honey", "bears#1"),
        question("fi", 2, "rust", "iron#1"),
    )
    return Corpus("toy", questions, documents, {"de": ("bears", "bees")})
