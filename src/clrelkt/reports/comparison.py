"""Runs side by side, and whether they differ by more than chance."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from clrelkt.errors import DataError, UnknownNameError
from clrelkt.evaluation import Comparison, MetricName, Results, SeedSummary, aggregate
from clrelkt.evaluation.resampling import per_question
from clrelkt.evaluation.significance import QuestionValues, compare_values
from clrelkt.reports.run_folder import FinishedRun, read_finished_run, run_folders

__all__ = ["ComparedRun", "RunComparison", "compare_runs"]

_MISSING = "not given"
_SEED = re.compile(r"seed-\d+")


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """A run, or several that differ in their seed alone.

    ``results`` are one a seed: of a stage, or of every language's own last stage. With several
    seeds the intervals of ``summary`` are over these, else over questions.
    """

    label: str
    runs: tuple[FinishedRun, ...]
    results: tuple[Results, ...]
    summary: SeedSummary

    @property
    def stage(self) -> str:
        """The stage, or stages, that the results are of."""
        return self.results[0].encoder


@dataclass(frozen=True, kw_only=True)
class RunComparison:
    """Runs side by side in one metric.

    Attributes:
        metric: the metric.
        runs: the runs, in the order given.
        against_first: by label, each later run less the first, where both have the same test
            questions.
        notes: what a reader should know, such as why a comparison is missing.
        settings: what differs in how they were made: by setting, one value a run.
    """

    metric: MetricName
    runs: tuple[ComparedRun, ...]
    against_first: Mapping[str, Comparison]
    notes: tuple[str, ...]
    settings: Mapping[str, tuple[str, ...]]

    @property
    def summaries(self) -> Mapping[str, SeedSummary]:
        """Mean and interval of every run."""
        return MappingProxyType({run.label: run.summary for run in self.runs})

    def significant(self, label: str, row: str) -> bool:
        """Whether a run differs from the first in a language, a group or ``all``."""
        found = self.against_first.get(label)
        if found is None:
            return False
        rows = {**found.languages, **found.means, "all": found.mean}
        return row in rows and rows[row].significant

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "metric": self.metric,
            "runs": [
                {
                    "label": run.label,
                    "folders": [str(one.folder) for one in run.runs],
                    "seeds": [one.seed for one in run.runs],
                    "stage": run.stage,
                    "corpus": run.results[0].corpus,
                    "split": run.results[0].split,
                    "summary": run.summary.to_json(),
                }
                for run in self.runs
            ],
            "against_first": {
                label: comparison.to_json() for label, comparison in self.against_first.items()
            },
            "notes": list(self.notes),
            "settings": {key: list(values) for key, values in self.settings.items()},
        }


def compare_runs(
    folders: Sequence[Path], *, stage: str | None = None, metric: MetricName = "hit_rate@1"
) -> RunComparison:
    """Read complete runs and compare them.

    Each later run is compared with the first by the paired randomisation test over questions. Of
    several seeds a question's value is their mean.

    Args:
        folders: of runs, or of reproductions (with a folder ``seed-N`` a seed).
        stage: compare the encoders of this stage; None: each language's own last one.
        metric: the metric.

    Raises:
        TrainingError: a folder holds no complete run.
        DataError: fewer than two runs, or a run that looked at no test question.
        UnknownNameError: a run has no such stage.
    """
    if len(folders) < 2:
        raise DataError(f"{len(folders)} run given: at least two are needed for a comparison")
    labels = _labels(folders)
    runs = tuple(_read(label, folder, stage) for label, folder in zip(labels, folders, strict=True))
    notes: list[str] = []
    against: dict[str, Comparison] = {}
    for other in runs[1:]:
        try:
            against[other.label] = _compare(other, runs[0], metric)
        except DataError as error:
            notes.append(f"{other.label} and {runs[0].label}: no test of significance: {error}")
            continue
        if _corpus_digest(other) != _corpus_digest(runs[0]):
            notes.append(
                f"{other.label} and {runs[0].label} have the same test questions, but not the same "
                "corpus: what they trained on differs"
            )
    return RunComparison(
        metric=metric,
        runs=runs,
        against_first=MappingProxyType(against),
        notes=tuple(notes),
        settings=MappingProxyType(dict(_differences(runs))),
    )


def _labels(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise DataError("the same run is given twice; name each once")
    # "seed-0" says too little by itself.
    count = 2 if any(_SEED.fullmatch(own[-1]) for own in parts) else 1
    while len({own[-count:] for own in parts}) < len(parts):
        count += 1
    return ["/".join(own[-count:]) for own in parts]


def _read(label: str, folder: Path, stage: str | None) -> ComparedRun:
    runs = tuple(read_finished_run(path) for path in run_folders(folder))
    results = tuple(_chosen(run, stage) for run in runs)
    return ComparedRun(label=label, runs=runs, results=results, summary=aggregate(results))


def _chosen(run: FinishedRun, stage: str | None) -> Results:
    if not run.results:
        raise DataError(
            f"{run.folder}: this run looked at no test question, so there is nothing to compare"
        )
    if stage is None:
        return run.own_results()
    if stage not in run.results:
        raise UnknownNameError(
            f"{run.folder} has no stage {stage!r}; it has {', '.join(run.results)}"
        )
    return run.results[stage]


def _compare(run: ComparedRun, first: ComparedRun, metric: MetricName) -> Comparison:
    kinds = [(r.pool, r.document_score, r.split) for r in (run.results[0], first.results[0])]
    if kinds[0] != kinds[1]:
        raise DataError(f"they are tested in other ways: {kinds[0]} and {kinds[1]}")
    return compare_values(
        _values(run, metric),
        _values(first, metric),
        run.results[0].groups,
        names=(run.label, first.label),
        metric=metric,
    )


def _values(run: ComparedRun, metric: MetricName) -> QuestionValues:
    """Return every question's value, the mean over seeds."""
    values: dict[str, dict[str, float]] = {}
    for code in run.results[0].languages:
        rows = [result.languages[code] for result in run.results]
        ids = rows[0].parallel_ids
        if any(row.ranks is None or row.parallel_ids != ids for row in rows):
            raise DataError(f"the seeds of {run.label} were tested on other questions")
        each = [per_question(row.ranks, metric) for row in rows if row.ranks is not None]
        values[code] = dict(zip(ids, np.mean(each, axis=0).astype(float).tolist(), strict=True))
    return values


def _corpus_digest(run: ComparedRun) -> Any:
    return run.runs[0].described["corpus"].get("sha256")


def _differences(runs: Sequence[ComparedRun]) -> Iterator[tuple[str, tuple[str, ...]]]:
    flat = [_flat_settings(run) for run in runs]
    for key in dict.fromkeys(key for one in flat for key in one):
        values = tuple(one.get(key, _MISSING) for one in flat)
        if len(set(values)) > 1:
            yield key, values


def _flat_settings(run: ComparedRun) -> dict[str, str]:
    described = run.runs[0].described
    seeds = ", ".join(str(one.seed) for one in run.runs)
    settings: dict[str, str] = {"seed": seeds, "split seed": str(described.get("split_seed"))}
    settings |= {"weights": str(described.get("weights"))}
    recipe = dict(run.runs[0].recipe.to_json())
    stages = recipe.pop("stages")
    settings |= dict(_flattened(recipe, ""))
    for stage in stages:
        settings |= dict(_flattened(stage, f"{stage['name']}: "))
    return settings


def _flattened(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flattened(
                inner, f"{name}{key}" if name.endswith(": ") or not name else f"{name}.{key}"
            )
    elif isinstance(value, list) and not any(isinstance(inner, dict) for inner in value):
        yield name, " ".join(map(str, value))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _flattened(inner, f"{name}[{place}]")
    else:
        yield name, str(value)
