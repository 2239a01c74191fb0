"""What each part of a contrastive recipe brings: the recipe with one part changed at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clrelkt.errors import SettingsError
from clrelkt.evaluation import EvaluationSettings
from clrelkt.training.environment import describe_environment
from clrelkt.training.processes import Say, Task, run_processes
from clrelkt.training.recipe import ZERO_SHOT, Contrastive, Measurement, Recipe, Stage
from clrelkt.training.reproduction import summarised
from clrelkt.training.run import RunSettings, read_run_results

__all__ = ["FORMAT", "WHOLE", "ablate", "variants"]

FORMAT = 1
WHOLE = "whole recipe"
"""What tables call the recipe with nothing changed."""

_WEIGHTS = ("whole_documents", "translated", "sentences", "english", "anchor", "closeness")


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """Return the recipe whole, and with each part of its last stage changed, by name.

    Parts that it has are left out, choices that it has not made are made: documents scored by
    their best passage, both directions, a filter of false negatives.

    Raises:
        SettingsError: the last stage is not contrastive.
    """
    stage = recipe.stages[-1]
    method = stage.method
    if not isinstance(method, Contrastive):
        raise SettingsError(
            f"recipe {recipe.name!r}: its last stage {stage.name!r} is not contrastive; only the "
            "parts of such a stage can be left out one by one"
        )
    changed = {f"without {name}": _changed(method, name, 0.0) for name in _WEIGHTS}
    found = {WHOLE: recipe}
    for name, other in changed.items():
        if other != method:
            found[name] = _with_stage(recipe, replace(stage, method=other))
    for part in ("pairs", "answered"):
        if getattr(method, part):
            lesser = _changed(method, part, None)
            found[f"without {part}"] = _with_stage(recipe, replace(stage, method=lesser))
    if stage.optimisation.token_dropout:
        calm = replace(stage.optimisation, token_dropout=0.0)
        found["without token_dropout"] = _with_stage(recipe, replace(stage, optimisation=calm))
    for name, other in _choices(method).items():
        found[name] = _with_stage(recipe, replace(stage, method=other))
    return found


def _changed(method: Contrastive, part: str, value: float | None) -> Contrastive:
    values: dict[str, Any] = {part: value}
    return replace(method, **values)


def _choices(method: Contrastive) -> dict[str, Contrastive]:
    choices = {
        "score = best-passage": replace(method, score="best-passage"),
        "directions = both": replace(method, directions="both"),
        "false_negatives = 0.95": replace(method, false_negatives=0.95),
        "closeness = 5": replace(method, closeness=5.0),
    }
    return {name: other for name, other in choices.items() if other != method}


def _with_stage(recipe: Recipe, stage: Stage) -> Recipe:
    return replace(recipe, stages=(*recipe.stages[:-1], stage))


def ablate(
    recipe: Recipe,
    settings: RunSettings,
    seeds: Sequence[int],
    *,
    jobs: int = 1,
    say: Say | None = None,
) -> dict[str, Any]:
    """Carry out every variant with every seed and return what dev says of each.

    No test question is looked at. Runs lie in ``VARIANT-seed-N`` of ``settings.output``; those that
    are complete are read, those that were stopped go on. The record's ``tests`` have a block for
    each of the two ways of scoring a document, with the variants in the stages' place. ``say`` is
    told which runs begin and end.

    Raises:
        SettingsError: the last stage is not contrastive.
        TrainingError: a run failed.
    """
    own = replace(recipe, measurements=_on_dev(recipe))
    tasks = {
        (name, seed): Task(
            f"{name}, seed {seed}",
            variant,
            replace(settings, output=folder, seed=seed, dev_only=True),
            folder.with_name(f"{folder.name}.recipe.json"),
        )
        for name, variant in variants(own).items()
        for seed in seeds
        for folder in [_folder(settings, name, seed)]
    }
    missing = [t for t in tasks.values() if not (t.settings.output / "results.json").exists()]
    run_processes(missing, jobs, say)
    measured = {key: read_run_results(task.settings.output)[1] for key, task in tasks.items()}
    stage = recipe.stages[-1].name
    names = list(dict.fromkeys(name for name, _ in tasks))
    return {
        "format": FORMAT,
        "recipe": own.to_json(),
        "corpus": recipe.corpus,
        "weights": _weights(next(iter(tasks.values())).settings.output),
        "split": "dev",
        "split_seed": settings.split_seed,
        "seeds": list(seeds),
        "environment": describe_environment(),
        "tests": {
            wanted.name: {
                ZERO_SHOT: summarised(
                    [measured[WHOLE, seed][wanted.name][ZERO_SHOT] for seed in seeds]
                ),
                **{
                    name: summarised([measured[name, seed][wanted.name][stage] for seed in seeds])
                    for name in names
                },
            }
            for wanted in own.measurements or ()
        },
    }


def _weights(folder: Path) -> str:
    return str(json.loads((folder / "run.json").read_text(encoding="utf-8"))["weights"])


def _on_dev(recipe: Recipe) -> tuple[Measurement, ...]:
    own = EvaluationSettings(document_score="best-passage")
    languages = tuple(code for code in recipe.languages or () if code != "en") or None
    best = Measurement("dev, best passage", split="dev", languages=languages, evaluation=own)
    return best, replace(best, name="dev, one vector", evaluation=EvaluationSettings())


def _folder(settings: RunSettings, name: str, seed: int) -> Path:
    safe = "".join(character if character.isalnum() else "-" for character in name)
    return Path(settings.output) / f"{safe}-seed-{seed}"
