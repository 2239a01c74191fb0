"""``clrelkt train``: one run of a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from clrelkt.cli.finishing import finish
from clrelkt.cli.options import changed_recipe, run_options

__all__ = ["train"]


@click.command()
@click.argument("recipe")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--stage", metavar="NAME", help="Train up to this stage, with what it builds on.")
@click.option("--corpus", metavar="NAME|PATH", help="Train on this corpus, not on the recipe's.")
@click.option("--resume", is_flag=True, help="Go on with the run that was stopped in the folder.")
@click.option("--dev-only", is_flag=True, help="Look at no test question; end with what dev says.")
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
def train(
    recipe: str,
    seed: int,
    stage: str | None,
    corpus: str | None,
    resume: bool,
    dev_only: bool,
    encoder: str | None,
    output: Path | None,
    split_by: Any,
    split_seed: int,
    device: str | None,
    save_form: Any,
    checkpoint_seconds: float,
    as_json: bool,
) -> None:
    """Carry out RECIPE, a name (xquad, mlqa, xorqa, ...) or a TOML file.

    Everything lands in one folder: log, encoders of every stage, results on the test questions.
    """
    import dataclasses

    from clrelkt.training import RunSettings, load_recipe
    from clrelkt.training import train as run_recipe

    chosen = load_recipe(recipe)
    if stage is not None:
        chosen = chosen.up_to(stage)
    chosen = changed_recipe(chosen, encoder, split_by)
    chosen = dataclasses.replace(chosen, corpus=corpus or chosen.corpus)
    settings = RunSettings(
        output=output or Path("runs") / f"{chosen.name}-seed-{seed}",
        seed=seed,
        split_seed=split_seed,
        resume=resume,
        device=device,
        save_form=save_form,
        checkpoint_seconds=checkpoint_seconds,
        dev_only=dev_only,
    )
    run = run_recipe(chosen, settings)
    finish(run.folder, quiet=True)
    if as_json:
        results = {name: result.to_json() for name, result in run.results.items()}
        click.echo(json.dumps(results, ensure_ascii=False, indent=1))
        return
    from clrelkt.cli.show import show_stages
    from clrelkt.evaluation import aggregate

    if run.results:
        show_stages({name: aggregate([result]) for name, result in run.results.items()})
    click.echo(f"the run, its report, its log and its encoders: {run.folder}")
