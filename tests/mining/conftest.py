from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from clrelkt.corpora.model import Corpus, Document, Passage, Question
from clrelkt.encoders.protocol import TextKind


class TableEncoder:
    """An encoder that knows a vector for each of a few texts, and counts what it encodes."""

    name = "table"
    weights = "by hand"
    languages = frozenset({"de"})

    def __init__(self, vectors: Mapping[str, Sequence[float]]) -> None:
        self.vectors = {text: np.array(row, np.float32) for text, row in vectors.items()}
        self.dimension = len(next(iter(self.vectors.values())))
        self.encoded: Counter[tuple[str, str]] = Counter()

    def encode(
        self, texts: Sequence[str], kind: TextKind = "passage", *, progress: bool = False
    ) -> np.ndarray:
        self.encoded.update((text, kind) for text in texts)
        rows = np.stack([self.vectors[text] for text in texts])
        unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


def document(name: str, *texts: str) -> Document:
    passages = tuple(Passage(f"{name}#{number}", name, text) for number, text in enumerate(texts))
    return Document(name, name, passages)


def question(language: str, number: int, text: str, gold: str | None) -> Question:
    """A question whose gold is a passage id such as ``bees#0``."""
    document_id = gold.partition("#")[0] if gold else None
    return Question(
        f"{language}:{number}", language, text, document_id, gold, (), f"parallel-{number}"
    )


@pytest.fixture
def corpus() -> Corpus:
    """Four documents; German is searched in three of them, and rocks is not translated."""
    documents = (
        document("bees", "bees make honey in hives", "a queen lives in the hive"),
        document("bears", "bears eat honey and fish", "bears sleep in winter"),
        document("copy", "bees make honey in hives", "the copy says more on wax"),
        document("rocks", "rocks are hard as iron", "lava becomes rock"),
    )
    questions = (
        question("en", 0, "who makes honey in hives", "bees#0"),
        question("en", 1, "what do bears do in winter", "bears#1"),
        question("de", 0, "wer macht Honig", "bees#0"),
        question("de", 1, "was tun Bären im Winter", "bears#1"),
        question("de", 2, "was ist hart", "copy#1"),
        question("ru", 1, "что делают медведи", "bears#1"),
    )
    return Corpus("toy", questions, documents, {"de": ("bees", "bears", "copy")})


@pytest.fixture
def table_encoder() -> type[TableEncoder]:
    return TableEncoder
