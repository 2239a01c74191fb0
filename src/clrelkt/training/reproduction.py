"""The same recipe with several seeds, and what they say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clrelkt.corpora import load_corpus
from clrelkt.errors import TrainingError
from clrelkt.evaluation import Results, SeedSummary, aggregate
from clrelkt.evaluation.seeds import over_seeds
from clrelkt.training.environment import describe_environment
from clrelkt.training.processes import Say, Task, run_processes
from clrelkt.training.provenance import describe_encoder
from clrelkt.training.recipe import Recipe
from clrelkt.training.run import (
    ZERO_SHOT,
    Measured,
    RunSettings,
    check_run,
    read_run,
    read_run_results,
    train,
)

__all__ = ["FORMAT", "Reproduction", "reproduce", "summarised"]

FORMAT = 1

_Found = tuple[Mapping[str, Results], Measured]


@dataclass(frozen=True)
class Reproduction:
    """Results of every seed, by stage; ``results[stage][i]`` belongs to ``seeds[i]``.

    ``measured[i]`` holds what else seed ``i`` measured, by measurement, stage and name.
    ``encoder`` is what the folder of the recipe's encoder says of it, None where it is no folder,
    and ``translated_by`` how many questions each model has translated.
    """

    recipe: Recipe
    seeds: tuple[int, ...]
    split_seed: int
    results: Mapping[str, tuple[Results, ...]]
    measured: tuple[Measured, ...] = ()
    encoder: Mapping[str, Any] | None = None
    translated_by: Mapping[str, int] = field(default_factory=dict)

    def summaries(self) -> dict[str, SeedSummary]:
        """Return mean and interval of every stage."""
        return {stage: aggregate(results) for stage, results in self.results.items()}

    def to_json(self, command: str) -> dict[str, Any]:
        """Return everything that a reader needs to check or repeat it; ``command`` repeats it."""
        first = next(iter(self.results.values()))[0]
        record = {
            "format": FORMAT,
            "command": command,
            "recipe": self.recipe.to_json(),
            "corpus": first.corpus,
            **({"translated_by": dict(self.translated_by)} if self.translated_by else {}),
            **({"encoder": dict(self.encoder)} if self.encoder else {}),
            "weights": self.results[ZERO_SHOT][0].weights,
            "split_seed": self.split_seed,
            "seeds": list(self.seeds),
            "environment": describe_environment(),
            "stages": {
                stage: {
                    "per_seed": [result.to_json() for result in results],
                    "summary": aggregate(results).to_json(),
                }
                for stage, results in self.results.items()
            },
        }
        tests = self._tests()
        return record | {"tests": tests} if tests else record

    def _tests(self) -> dict[str, Any]:
        """Return the measurements' numbers by name and stage: every seed's, and their summary."""
        if not self.measured:
            return {}
        return {
            name: {
                stage: summarised([own[name][stage] for own in self.measured]) for stage in stages
            }
            for name, stages in self.measured[0].items()
        }


def summarised(per_seed: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return every seed's values, and mean and interval of each, as a record has them."""
    return {
        "per_seed": [dict(values) for values in per_seed],
        "summary": {
            key: over_seeds([values[key] for values in per_seed]).to_json() for key in per_seed[0]
        },
    }


def reproduce(
    recipe: Recipe,
    settings: RunSettings,
    seeds: Sequence[int],
    *,
    jobs: int = 1,
    say: Say | None = None,
) -> Reproduction:
    """Carry out ``recipe`` once a seed, in folders ``seed-N`` of ``settings.output``.

    Seeds that are complete are read, seeds that were stopped go on. With ``jobs`` above 1 that many
    processes run at a time, spread over the GPUs where there are several; ``say`` is told which
    begin and end.

    Raises:
        TrainingError: a run failed, or one that is there is of another recipe or split, or was not
            tested.
    """
    folders = [Path(settings.output) / f"seed-{seed}" for seed in seeds]
    for seed, folder in zip(seeds, folders, strict=True):
        if (folder / "run.json").exists() or (folder / "results.json").exists():
            check_run(folder, recipe, replace(settings, seed=seed))
    missing = [
        (seed, folder)
        for seed, folder in zip(seeds, folders, strict=True)
        if not (folder / "results.json").exists()
    ]
    if jobs > 1:
        run_processes(_tasks(recipe, settings, missing), jobs, say)
        rows: list[_Found] = [read_run_results(folder) for folder in folders]
    else:
        done = _run_here(recipe, settings, missing)
        rows = [done[path] if path in done else read_run_results(path) for path in folders]
    for folder, (results, _) in zip(folders, rows, strict=True):
        if not results:
            raise TrainingError(
                f"{folder}: the run that is there looked at no test question. Name another folder "
                "with -o, or remove that one"
            )
    stages = {stage: tuple(results[stage] for results, _ in rows) for stage in rows[0][0]}
    measured = tuple(own for _, own in rows if own)
    described = read_run(folders[0])
    return Reproduction(
        recipe,
        tuple(seeds),
        settings.split_seed,
        stages,
        measured,
        encoder=described.get("encoder") or describe_encoder(recipe.encoder),
        translated_by=described["corpus"].get("translated_by", {}),
    )


def _run_here(
    recipe: Recipe, settings: RunSettings, missing: Sequence[tuple[int, Path]]
) -> dict[Path, _Found]:
    corpus = load_corpus(recipe.corpus) if missing else None
    done: dict[Path, _Found] = {}
    for seed, folder in missing:
        own = replace(settings, output=folder, seed=seed, resume=True)
        run = train(recipe, own, corpus)
        done[folder] = run.results, run.measured
    return done


def _tasks(
    recipe: Recipe, settings: RunSettings, missing: Sequence[tuple[int, Path]]
) -> list[Task]:
    file = Path(settings.output) / "recipe.json"
    return [
        Task(f"seed {seed}", recipe, replace(settings, output=folder, seed=seed), file)
        for seed, folder in missing
    ]
