"""What an export has kept: vectors and hit rate beside the original's, size and speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clrelkt.corpora import Corpus
from clrelkt.encoders.protocol import Encoder, TextKind
from clrelkt.evaluation import EvaluationSettings, Results, RetrievalEvaluator
from clrelkt.sharing.exports import ExportForm

__all__ = ["ExportCheck", "ExportChecker", "LanguageCheck", "folder_bytes"]

_WARM_UP = 32
_ROUNDS = 2
"""The quicker one counts: something else may have been busy during the other."""


@dataclass(frozen=True, slots=True)
class LanguageCheck:
    """One language's questions: how close the vectors are, and what is found by them.

    ``least_cosine`` and ``mean_cosine`` are between the export's vectors and the original's.
    """

    questions: int
    least_cosine: float
    mean_cosine: float
    original_hit_rate: float
    hit_rate: float


@dataclass(frozen=True, slots=True)
class ExportCheck:
    """An export beside its original.

    ``megabytes`` (10^6 bytes) is the size of the folder, ``texts_per_second`` the speed on the
    corpus's questions and passages, in this process. ``means`` are hit rates@1 over the groups of
    languages, original and export.
    """

    form: ExportForm
    corpus: str
    megabytes: float
    texts: int
    texts_per_second: float
    original_texts_per_second: float
    passages_least_cosine: float
    languages: Mapping[str, LanguageCheck]
    means: Mapping[str, tuple[float, float]]

    @property
    def least_cosine(self) -> float:
        """The least cosine of any text."""
        return min(
            self.passages_least_cosine, *(row.least_cosine for row in self.languages.values())
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self) | {
            "least_cosine": self.least_cosine,
            "means": {
                group: {"original": original, "export": export}
                for group, (original, export) in self.means.items()
            },
        }


class ExportChecker:
    """Checks one export after the other against the same original, which is encoded once."""

    def __init__(
        self, original: Encoder, corpus: Corpus, settings: EvaluationSettings | None = None
    ) -> None:
        self._evaluator = RetrievalEvaluator(corpus, settings)
        self._corpus = corpus
        self._original = self._encoded(original)

    def __call__(self, export: Encoder, form: ExportForm, folder: Path) -> ExportCheck:
        """Compare ``export``, which lies in ``folder``, with the original."""
        found, original = self._encoded(export), self._original
        closeness = (found.questions * original.questions).sum(1)
        number = {text: row for row, text in enumerate(self._evaluator.question_texts)}
        languages = {}
        for task in self._evaluator.tasks:
            own = closeness[[number[question.text] for question in task.questions]]
            languages[task.language] = LanguageCheck(
                questions=len(task.questions),
                least_cosine=float(own.min()),
                mean_cosine=float(own.mean()),
                original_hit_rate=original.results.languages[task.language].hit_rate_at_1,
                hit_rate=found.results.languages[task.language].hit_rate_at_1,
            )
        return ExportCheck(
            form=form,
            corpus=self._corpus.name,
            megabytes=folder_bytes(folder) / 1e6,
            texts=len(found.questions) + len(found.passages),
            texts_per_second=found.texts_per_second,
            original_texts_per_second=original.texts_per_second,
            passages_least_cosine=float((found.passages * original.passages).sum(1).min()),
            languages=languages,
            means=_means(original.results, found.results),
        )

    def _encoded(self, encoder: Encoder) -> _Encoded:
        evaluator = self._evaluator
        # The first call may compile, allocate and read: it does not count.
        encoder.encode(evaluator.candidate_texts[:_WARM_UP])
        seconds = float("inf")
        for _ in range(_ROUNDS):
            start = time.perf_counter()
            questions = encoder.encode(evaluator.question_texts, "question")
            passages = encoder.encode(evaluator.candidate_texts, "passage")
            seconds = min(seconds, time.perf_counter() - start)
        results = evaluator(encoder, _known(questions, passages))
        speed = (len(questions) + len(passages)) / seconds
        return _Encoded(questions.astype(np.float64), passages.astype(np.float64), results, speed)


@dataclass(frozen=True, slots=True)
class _Encoded:
    questions: np.ndarray
    passages: np.ndarray
    results: Results
    texts_per_second: float


def _known(
    questions: np.ndarray, passages: np.ndarray
) -> Callable[[Sequence[str], TextKind], np.ndarray]:
    return lambda texts, kind: questions if kind == "question" else passages


def _means(original: Results, export: Results) -> dict[str, tuple[float, float]]:
    pairs = {
        group: (original.means[group].hit_rate_at_1, export.means[group].hit_rate_at_1)
        for group in original.means
    }
    return pairs | {"all": (original.mean.hit_rate_at_1, export.mean.hit_rate_at_1)}


def folder_bytes(folder: Path) -> int:
    """Return the length of all files in a folder together."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
