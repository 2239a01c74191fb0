"""``clrelkt ablate``: what each part of a contrastive recipe brings, on dev."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from clrelkt.cli.options import changed_recipe, changes_in_words, jobs_option, run_options

__all__ = ["ablate"]


@click.command()
@click.argument("recipe")
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True)
@jobs_option
@click.option("--languages", metavar="CODES", help="Train on these languages alone: en,de,ru.")
@click.option("--epochs", type=click.IntRange(min=1), help="[default: the recipe's]")
@run_options
@click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write every seed's figures, recipe, versions and hardware to this file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print that record as one JSON object.")
def ablate(
    recipe: str,
    seeds: int,
    jobs: int | None,
    languages: str | None,
    epochs: int | None,
    encoder: str | None,
    output: Path | None,
    split_by: Any,
    split_seed: int,
    device: str | None,
    save_form: Any,
    checkpoint_seconds: float,
    record: Path | None,
    as_json: bool,
) -> None:
    """Carry out RECIPE whole and with each part of its last, contrastive stage changed.

    Dev alone is asked. Stopped, the same command goes on where it was.
    """
    import dataclasses

    from clrelkt.files import write_json
    from clrelkt.training import RunSettings, load_recipe
    from clrelkt.training.ablation import ablate as run_variants
    from clrelkt.training.processes import default_jobs

    chosen = changed_recipe(load_recipe(recipe), encoder, split_by)
    if languages is not None:
        chosen = _in_languages(chosen, tuple(code for code in languages.split(",") if code))
    if epochs is not None:
        stage = chosen.stages[-1]
        shorter = dataclasses.replace(stage.optimisation, epochs=epochs)
        stage = dataclasses.replace(stage, optimisation=shorter)
        chosen = dataclasses.replace(chosen, stages=(*chosen.stages[:-1], stage))
    settings = RunSettings(
        output=output or Path("runs") / f"ablate-{chosen.name}",
        split_seed=split_seed,
        device=device,
        save_form=save_form,
        checkpoint_seconds=checkpoint_seconds,
    )
    words = changes_in_words(encoder, split_by)
    words += f" --languages {languages}" if languages else ""
    words += f" --epochs {epochs}" if epochs else ""
    command = f"clrelkt ablate {recipe}{words} --seeds {seeds} --split-seed {split_seed}"
    jobs = jobs or default_jobs(device)
    say = partial(click.echo, err=True)
    found = run_variants(chosen, settings, range(seeds), jobs=jobs, say=say)
    found = {"command": command} | found
    for path in filter(None, (settings.output / "record.json", record)):
        write_json(path, found)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=1))
        return
    _print(found)
    click.echo(f"{seeds} seed{'s' * (seeds > 1)}; runs and record: {settings.output}")


def _in_languages(recipe: Any, languages: tuple[str, ...]) -> Any:
    import dataclasses

    stages = tuple(dataclasses.replace(stage, languages=None) for stage in recipe.stages)
    return dataclasses.replace(recipe, languages=languages, stages=stages)


def _print(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    tests = record["tests"]
    table = Table(title="Hit rate@1 on dev, mean over the languages, and half its 95 % interval")
    table.add_column("")
    for name in tests:
        table.add_column(name, justify="right")
    for variant in next(iter(tests.values())):
        found = [block[variant]["summary"]["hit_rate@1"] for block in tests.values()]
        table.add_row(variant, *map(_cell, found))
    Console().print(table)


def _cell(estimate: dict[str, Any]) -> str:
    if estimate["high"] is None:
        return f"{estimate['mean']:.3f}"
    return f"{estimate['mean']:.3f} ± {(estimate['high'] - estimate['low']) / 2:.3f}"
