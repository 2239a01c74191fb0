"""``clrelkt demo``: the whole method in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from clrelkt.training import Recipe, RunSettings

__all__ = ["demo"]


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/demo"),
    show_default=True,
    help="Folder of the runs.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--device", metavar="NAME", help="cpu or cuda. [default: cuda where there is one]")
@click.option("--json", "as_json", is_flag=True, help="Print the record as one JSON object.")
def demo(output: Path, seeds: int, device: str | None, as_json: bool) -> None:
    """Run the whole method on the bundled corpus: zero-shot, warm-up, teacher, student, a table.

    24 English documents, 144 questions in English and eight other languages, mUSE's own weights;
    nothing is downloaded.
    """
    from clrelkt.cli.reproduce import run_reproduction
    from clrelkt.training import RunSettings, load_recipe

    if not as_json:
        click.echo(
            "Questions in eight languages, answers in 24 English documents. Each stage trains "
            "mUSE a step\nfurther; the table shows how often the right passage of 72 comes first "
            "for questions kept\naside.\n"
        )
    settings = RunSettings(output=output, device=device)
    command = f"clrelkt demo --seeds {seeds}"
    recipe = load_recipe("demo")
    run_reproduction(recipe, settings, seeds, 1, command, None, as_json)
    if not as_json:
        _show_installed(recipe, settings)


def _show_installed(recipe: Recipe, settings: RunSettings) -> None:
    """Say what the trained encoder finds of the same questions, where one is installed."""
    from clrelkt.corpora import load_corpus, take_split
    from clrelkt.encoders import best_encoder, load_encoder
    from clrelkt.evaluation import evaluate
    from clrelkt.training.device import choose_device

    name = best_encoder()
    if name == recipe.encoder:
        return
    questions = take_split(load_corpus(recipe.corpus), "test", seed=settings.split_seed)
    encoder = load_encoder(name).to(choose_device(settings.device))
    found = evaluate(encoder, questions, recipe.evaluation, languages=recipe.languages)
    click.echo(
        f"\n{name}, which is installed and was trained on XQuAD: hit rate@1 "
        f"{found.mean.hit_rate_at_1:.3f} on the same questions, mean over the languages"
    )
