"""``clrelkt train``: one run of a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clrelkt.cli.finishing import finish
from clrelkt.cli.options import arguments_again, changed_recipe, run_options

if TYPE_CHECKING:
    from clrelkt.training import Run

__all__ = ["train"]


@click.command()
@click.argument("recipe")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--stage", metavar="NAME", help="Train up to this stage, with what it builds on.")
@click.option("--corpus", metavar="NAME|PATH", help="Train on this corpus, not on the recipe's.")
@click.option("--resume", is_flag=True, help="Go on with the run that was stopped in the folder.")
@click.option("--dev-only", is_flag=True, help="Look at no test question; end with what dev says.")
@click.option(
    "--gpus",
    type=click.IntRange(min=1),
    metavar="N",
    help="Train in N processes, one a GPU (with --device cpu: N processes on the CPU), to the "
    "same result as in one.",
)
@click.option(
    "--chunk-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Encode at most N tokens with gradients at once; larger batches are encoded twice, in "
    "pieces, to the same result. [default: as many as fit]",
)
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
def train(
    recipe: str,
    seed: int,
    stage: str | None,
    corpus: str | None,
    resume: bool,
    dev_only: bool,
    gpus: int | None,
    chunk_tokens: int | None,
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
    from clrelkt.training.device import choose_devices
    from clrelkt.training.launch import end_process, launch, told_to_launcher
    from clrelkt.training.process_group import is_first_process, processes_asked_for

    chosen = load_recipe(recipe)
    if stage is not None:
        chosen = chosen.up_to(stage)
    chosen = changed_recipe(chosen, encoder, split_by)
    chosen = dataclasses.replace(chosen, corpus=corpus or chosen.corpus)
    if gpus is not None and gpus > 1 and processes_asked_for() == 1:
        choose_devices(device, gpus)
        launch(arguments_again(click.get_current_context()), gpus)
        return
    settings = RunSettings(
        output=output or Path("runs") / f"{chosen.name}-seed-{seed}",
        seed=seed,
        split_seed=split_seed,
        resume=resume,
        device=device,
        save_form=save_form,
        checkpoint_seconds=checkpoint_seconds,
        dev_only=dev_only,
        chunk_tokens=chunk_tokens,
    )
    with told_to_launcher():
        run = run_recipe(chosen, settings)
    if is_first_process():
        finish(run.folder, quiet=True)
        _tell(run, as_json)
    if processes_asked_for() > 1:
        end_process()


def _tell(run: Run, as_json: bool) -> None:
    if as_json:
        results = {name: result.to_json() for name, result in run.results.items()}
        click.echo(json.dumps(results, ensure_ascii=False, indent=1))
        return
    from clrelkt.cli.show import show_stages
    from clrelkt.evaluation import aggregate

    if run.results:
        show_stages({name: aggregate([result]) for name, result in run.results.items()})
    click.echo(f"the run, its report, its log and its encoders: {run.folder}")
