"""What an evaluation yields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Self, TypeVar

import numpy as np

from clrelkt.errors import DataError
from clrelkt.evaluation.metrics import hit_rate, reciprocal_rank

__all__ = ["METRICS", "LanguageResult", "MetricName", "Metrics", "Results", "groups_of"]

Given = TypeVar("Given")
Made = TypeVar("Made")

MetricName = Literal["hit_rate@1", "hit_rate@5", "hit_rate@10", "mrr@10"]

METRICS: tuple[MetricName, ...] = ("hit_rate@1", "hit_rate@5", "hit_rate@10", "mrr@10")
"""The metrics in the order of a table's columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The four metrics, each from 0 to 1."""

    hit_rate_at_1: float
    hit_rate_at_5: float
    hit_rate_at_10: float
    mrr_at_10: float

    def value(self, metric: MetricName) -> float:
        """Return one metric by the name that it has in JSON."""
        value: float = getattr(self, _ATTRIBUTES[metric])
        return value

    @classmethod
    def mean(cls, several: Iterable[Metrics]) -> Metrics:
        """Return the plain mean of at least one."""
        rows = list(several)
        return Metrics(
            **{
                attribute: float(np.mean([getattr(row, attribute) for row in rows]))
                for attribute in _ATTRIBUTES.values()
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Return the metrics under their names in JSON."""
        return {metric: self.value(metric) for metric in METRICS}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        return cls(**{name: float(record[metric]) for metric, name in _ATTRIBUTES.items()})


_ATTRIBUTES: Mapping[MetricName, str] = MappingProxyType(
    {metric: metric.replace("@", "_at_") for metric in METRICS}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageResult(Metrics):
    """The metrics of one language over ``questions`` questions.

    ``ranks`` (questions,), int64, and ``parallel_ids`` are kept for statistics; a result that was
    read from JSON has none.
    """

    questions: int
    ranks: np.ndarray | None = field(default=None, compare=False, repr=False)
    parallel_ids: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def from_ranks(cls, ranks: np.ndarray, parallel_ids: Sequence[str]) -> LanguageResult:
        """Compute the metrics of at least one rank."""
        return cls(
            questions=len(ranks),
            hit_rate_at_1=hit_rate(ranks, 1),
            hit_rate_at_5=hit_rate(ranks, 5),
            hit_rate_at_10=hit_rate(ranks, 10),
            mrr_at_10=reciprocal_rank(ranks, 10),
            ranks=ranks,
            parallel_ids=tuple(parallel_ids),
        )

    def to_json(self, *, with_ranks: bool = False) -> dict[str, Any]:
        """Return the number of questions and the metrics, and the gold's ranks if asked for."""
        record = {"questions": self.questions, **Metrics.to_json(self)}
        if with_ranks and self.ranks is not None:
            record["ranks"] = [
                [parallel_id, int(rank)]
                for parallel_id, rank in zip(self.parallel_ids, self.ranks, strict=True)
            ]
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        ranks = record.get("ranks")
        return cls(
            ranks=None if ranks is None else np.array([rank for _, rank in ranks], np.int64),
            parallel_ids=tuple(str(parallel_id) for parallel_id, _ in ranks or ()),
            questions=int(record["questions"]),
            hit_rate_at_1=float(record["hit_rate@1"]),
            hit_rate_at_5=float(record["hit_rate@5"]),
            hit_rate_at_10=float(record["hit_rate@10"]),
            mrr_at_10=float(record["mrr@10"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """An encoder's results on a corpus, language by language.

    ``groups`` names the languages behind each mean of ``means``: ``supported`` and
    ``unsupported``, where it is known which languages the encoder was trained on; the documents'
    own language is in neither.
    """

    encoder: str
    weights: str
    corpus: str
    pool: str
    document_score: str
    split: str
    languages: Mapping[str, LanguageResult]
    mean: Metrics
    means: Mapping[str, Metrics]
    groups: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: MappingProxyType({}), compare=False
    )

    @classmethod
    def of(
        cls,
        languages: Mapping[str, LanguageResult],
        groups: Mapping[str, tuple[str, ...]],
        *,
        encoder: str,
        weights: str,
        corpus: str,
        pool: str,
        document_score: str,
        split: str,
    ) -> Results:
        """Add the means over all languages and over each group to the languages' results."""
        return cls(
            encoder=encoder,
            weights=weights,
            corpus=corpus,
            pool=pool,
            document_score=document_score,
            split=split,
            languages=MappingProxyType(dict(languages)),
            mean=Metrics.mean(languages.values()),
            means=_mapped(lambda codes: Metrics.mean(languages[code] for code in codes), groups),
            groups=MappingProxyType(dict(groups)),
        )

    def to_json(self, *, with_ranks: bool = False) -> dict[str, Any]:
        """Return a JSON object; ``with_ranks`` adds what intervals over questions need."""
        record = {
            "encoder": self.encoder,
            "weights": self.weights,
            "corpus": self.corpus,
            "pool": self.pool,
            "document_score": self.document_score,
            "split": self.split,
            "languages": {
                code: result.to_json(with_ranks=with_ranks)
                for code, result in self.languages.items()
            },
            "mean": self.mean.to_json(),
            "means": {group: metrics.to_json() for group, metrics in self.means.items()},
        }
        if with_ranks:
            record["groups"] = {group: list(codes) for group, codes in self.groups.items()}
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Results:
        """Read what ``to_json`` wrote.

        Raises:
            DataError: a key is missing, or a value has another type.
        """
        try:
            return cls(
                encoder=str(record["encoder"]),
                weights=str(record["weights"]),
                corpus=str(record["corpus"]),
                pool=str(record["pool"]),
                document_score=str(record["document_score"]),
                split=str(record["split"]),
                languages=_mapped(LanguageResult.from_json, record["languages"]),
                mean=Metrics.from_json(record["mean"]),
                means=_mapped(Metrics.from_json, record["means"]),
                groups=_mapped(tuple, record.get("groups", {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"this is not a result that clrelkt evaluate --json wrote: {error!r}"
            ) from error


def _mapped(make: Callable[[Given], Made], values: Mapping[str, Given]) -> Mapping[str, Made]:
    return MappingProxyType({key: make(value) for key, value in values.items()})


def groups_of(
    languages: Iterable[str], known: frozenset[str], document_language: str
) -> Mapping[str, tuple[str, ...]]:
    """Divide ``languages`` into those that an encoder was trained on and the others.

    Without ``known`` languages there are no groups, and an empty group is left out.
    """
    foreign = [code for code in languages if code != document_language]
    if not known:
        return {}
    groups = {
        "supported": tuple(code for code in foreign if code in known),
        "unsupported": tuple(code for code in foreign if code not in known),
    }
    return {name: codes for name, codes in groups.items() if codes}
