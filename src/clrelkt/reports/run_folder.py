"""What a run left behind, read for its report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clrelkt.errors import SettingsError, TrainingError
from clrelkt.evaluation import Results, SeedSummary, aggregate, printed_alike
from clrelkt.training.portrait import Portrait, portrayed_encoders, read_portrait
from clrelkt.training.recipe import BASELINE, ZERO_SHOT, Recipe, recipe_from_json
from clrelkt.training.run import Measured, read_run, read_run_results

__all__ = ["FinishedRun", "read_finished_run", "run_folders"]


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A complete run.

    Attributes:
        folder: where it lies.
        described: what ``run.json`` says.
        recipe: the recipe.
        results: on the test questions, by stage; none where they were not looked at.
        measured: numbers by measurement, stage and name.
        log: the records of ``log.jsonl``, of evaluations alone.
        seconds: by stage.
        portrait: what pictures are made of; None in runs of older versions.
    """

    folder: Path
    described: Mapping[str, Any]
    recipe: Recipe
    results: Mapping[str, Results]
    measured: Measured
    log: Sequence[Mapping[str, Any]]
    seconds: Mapping[str, float]
    portrait: Portrait | None

    @property
    def seed(self) -> int:
        """The seed of training."""
        return int(self.described["seed"])

    @property
    def corpus(self) -> str:
        """The corpus's name."""
        return str(self.described["corpus"]["name"])

    @property
    def title(self) -> str:
        """The recipe's name and the seed."""
        return f"{self.recipe.name}, seed {self.seed}"

    @property
    def last_stages(self) -> tuple[str, ...]:
        """The stages that no other starts from."""
        return portrayed_encoders(self.recipe)[1:]

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of the questions that were tested, or else of dev."""
        if self.results:
            return tuple(next(iter(self.results.values())).languages)
        return tuple(dict.fromkeys(code for line in self.log for code in line["languages"]))

    def own_stage(self, language: str) -> str:
        """Return the last of ``last_stages`` that trained on a language, else the last of all."""
        trained = [
            name
            for name in self.last_stages
            if language in self.recipe.stage_languages(self.recipe.stage(name), self.languages)
        ]
        return trained[-1] if trained else self.last_stages[-1]

    def own_results(self) -> Results:
        """Return the test results after training, each language's by its own stage."""
        before = self.results[ZERO_SHOT]
        rows = {
            code: self.results[self.own_stage(code)].languages[code] for code in before.languages
        }
        return Results.of(
            rows,
            before.groups,
            encoder=" and ".join(dict.fromkeys(self.own_stage(code) for code in rows)),
            weights=before.weights,
            corpus=before.corpus,
            pool=before.pool,
            document_score=before.document_score,
            split=before.split,
        )

    @cached_property
    def summaries(self) -> Mapping[str, SeedSummary]:
        """The results with intervals over questions, BM25 and zero-shot first."""
        order = {BASELINE: 0, ZERO_SHOT: 1}
        names = sorted(self.results, key=lambda name: order.get(name, 2))
        return MappingProxyType({name: aggregate([self.results[name]]) for name in names})

    def printed(self) -> Results | None:
        """Return the paper's figures, where they are of the same kind of test."""
        if not self.results:
            return None
        own = next(iter(self.results.values()))
        return printed_alike(self.corpus, own.pool, own.document_score)


def run_folders(folder: Path) -> list[Path]:
    """Return the folders of the seeds of a reproduction, in order, or ``folder`` itself.

    Raises:
        TrainingError: it is a run and holds others too.
    """
    seeds = [path for path in folder.glob("seed-*") if (path / "run.json").exists()]
    if seeds and (folder / "run.json").exists():
        raise TrainingError(f"{folder} is a run, and holds others too: name one of them")
    return sorted(seeds, key=lambda path: (len(path.name), path.name)) or [folder]


def read_finished_run(folder: Path) -> FinishedRun:
    """Read a run that is complete.

    Raises:
        TrainingError: it is none, is not complete, or a file of it cannot be read.
    """
    described = read_run(folder)
    if not (folder / "results.json").exists():
        raise TrainingError(
            f"{folder}: this run is not complete (no results.json). Go on with it first: "
            "clrelkt train RECIPE --resume"
        )
    results, measured = read_run_results(folder)
    try:
        recipe = recipe_from_json(described["recipe"])
    except (SettingsError, KeyError, TypeError) as error:
        raise TrainingError(f"{folder / 'run.json'}: its recipe cannot be read: {error}") from error
    return FinishedRun(
        folder=folder,
        described=described,
        recipe=recipe,
        results=results,
        measured=measured,
        log=_read_log(folder / "log.jsonl"),
        seconds=_read_seconds(folder / "timings.json"),
        portrait=read_portrait(folder),
    )


def _read_log(path: Path) -> list[dict[str, Any]]:
    lines = []
    number = 0
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            number += 1
            record = json.loads(line)
            if "dev_hit_rate@1" in record:
                lines.append(_checked(record))
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"{path}: line {number} is no line of a run's log: {error}") from error
    return lines


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    return record | {
        "stage": str(record["stage"]),
        "step": int(record["step"]),
        "loss": None if record["loss"] is None else float(record["loss"]),
        "losses": [float(loss) for loss in record.get("losses", ())],
        "dev_hit_rate@1": float(record["dev_hit_rate@1"]),
        "languages": {str(code): float(rate) for code, rate in record["languages"].items()},
        "kept": bool(record["kept"]),
    }


def _read_seconds(path: Path) -> dict[str, float]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): float(seconds) for name, seconds in record.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise TrainingError(f"{path} cannot be read ({error})") from error
