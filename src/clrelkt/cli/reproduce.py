"""``clrelkt reproduce``: a recipe with several seeds, its table beside the paper's."""

from __future__ import annotations

import json
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clrelkt.cli.finishing import finish
from clrelkt.cli.options import changed_recipe, changes_in_words, jobs_option, run_options

if TYPE_CHECKING:
    from clrelkt.evaluation import SeedSummary
    from clrelkt.training.reproduction import Reproduction

__all__ = ["reproduce", "run_reproduction"]


@click.command()
@click.argument("corpus")
@click.option("--recipe", metavar="NAME|FILE", help="[default: the recipe called like the corpus]")
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True)
@jobs_option
@run_options
@click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write every seed's results, recipe, weights, versions and hardware to this file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print that record as one JSON object.")
def reproduce(
    corpus: str,
    recipe: str | None,
    seeds: int,
    jobs: int | None,
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
    """Carry out the experiment on CORPUS (xquad, mlqa, xorqa) with several seeds.

    Ends with a table: BM25, zero-shot and every stage, mean and interval over the seeds, and the
    paper's printed figures. Stopped, the same command goes on where it was.
    """
    from clrelkt.training import RunSettings, load_recipe

    chosen = changed_recipe(load_recipe(recipe or corpus), encoder, split_by)
    changes = changes_in_words(encoder, split_by)
    settings = RunSettings(
        output=output or Path("runs") / _folder_name(chosen.name, encoder, split_by),
        split_seed=split_seed,
        device=device,
        save_form=save_form,
        checkpoint_seconds=checkpoint_seconds,
    )
    named = f" --recipe {shlex.quote(recipe)}" if recipe else ""
    seeded = f"--seeds {seeds} --split-seed {split_seed}"
    command = f"clrelkt reproduce {shlex.quote(corpus)}{named}{changes} {seeded}"
    run_reproduction(chosen, settings, seeds, jobs, command, record, as_json)


def _folder_name(recipe: str, encoder: str | None, split_by: str | None) -> str:
    # Runs with other settings shall not land among those of the recipe as it stands.
    started = f"-from-{Path(encoder).name}" if encoder else ""
    return f"reproduce-{recipe}{started}{f'-by-{split_by}' if split_by else ''}"


def run_reproduction(
    recipe: Any,
    settings: Any,
    seeds: int,
    jobs: int | None,
    command: str,
    record: Path | None,
    as_json: bool,
) -> None:
    """Train every seed, write the record, print the tables."""
    from clrelkt.files import write_json
    from clrelkt.training.processes import default_jobs
    from clrelkt.training.reproduction import reproduce as run_seeds

    jobs = jobs or min(seeds, default_jobs(settings.device))
    say = partial(click.echo, err=True)
    reproduction = run_seeds(recipe, settings, range(seeds), jobs=jobs, say=say)
    found = reproduction.to_json(command)
    for path in filter(None, (settings.output / "record.json", record)):
        write_json(path, found)
    for folder in (settings.output / f"seed-{seed}" for seed in range(seeds)):
        if not (folder / "report.html").exists():
            finish(folder, quiet=True)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=1))
        return
    from clrelkt.cli.show import show_gains, show_stages

    summaries = reproduction.summaries()
    show_stages(summaries | _paper(reproduction))
    groups = list(next(iter(summaries.values())).means)
    show_gains(summaries, reproduction.recipe, groups)
    click.echo(
        f"{seeds} seed{'s' * (seeds > 1)}, split by {reproduction.recipe.split_by}; intervals are "
        f"{_interval(seeds)}"
    )
    click.echo(f"runs, encoders and record: {settings.output}")
    shown = settings.output / ("seed-0" if seeds == 1 else "seed-N") / "report.html"
    click.echo(f"report: {shown}")


def _interval(seeds: int) -> str:
    return "over seeds (Student's t, 95 %)" if seeds > 1 else "over questions (bootstrap, 95 %)"


def _paper(reproduction: Reproduction) -> dict[str, SeedSummary]:
    """Return the paper's figures, where they are of the same kind of test."""
    from clrelkt.evaluation import aggregate, printed_alike

    own = next(iter(reproduction.results.values()))[0]
    printed = printed_alike(reproduction.recipe.corpus, own.pool, own.document_score)
    return {} if printed is None else {printed.encoder: aggregate([printed])}
