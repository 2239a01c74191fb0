"""``clrelkt measure``: an encoder in other ways than on a corpus of questions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clrelkt.cli.export import measure_exports
from clrelkt.cli.measure_questions import mixed_pool, sentences
from clrelkt.cli.measuring import load_onto
from clrelkt.cli.options import gpus_option

if TYPE_CHECKING:
    from clrelkt.evaluation.translation import TranslationResult

__all__ = ["measure"]


@click.group()
def measure() -> None:
    """Measure an encoder in other ways: translations, mixed-language pools, sentences, exports."""


measure.add_command(mixed_pool)
measure.add_command(sentences)
measure.add_command(measure_exports)


@measure.command()
@click.argument("encoder")
@click.option(
    "--parallel",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Sentence pairs: a TSV file, Moses files or a folder of them. Can be given repeatedly.",
)
@click.option("--languages", required=True, metavar="CODES", help="ja,ko,de")
@click.option(
    "--held-out",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="How many sentences of each language.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which sentences.")
@click.option("--against", metavar="ENCODER", help="Measure this one too, and show both.")
@click.option("--device", metavar="NAME", help="cpu or cuda. [default: cuda where there is one]")
@gpus_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def translations(
    encoder: str,
    parallel: tuple[Path, ...],
    languages: str,
    held_out: int,
    seed: int,
    against: str | None,
    device: str | None,
    gpus: int,
    as_json: bool,
) -> None:
    """Measure how often ENCODER finds a sentence's translation among those of all.

    The same sentences that clrelkt languages add holds out for the seed: another encoder is
    measured on the same ones.
    """
    from clrelkt.corpora.pairs import find_pairs, hold_out
    from clrelkt.evaluation.translation import translation_retrieval
    from clrelkt.training.device import choose_devices

    devices = choose_devices(device, gpus)
    codes = [code for code in re.split(r"[,\s]+", languages) if code]
    if not codes:
        raise click.BadParameter("at least one code expected, for example ja,ko,de")
    found = find_pairs(parallel, codes)
    held = [hold_out(found[code], held_out, seed)[1] for code in found]
    results: dict[str, list[TranslationResult]] = {}
    for name in (encoder, *([against] if against else [])):
        loaded = load_onto(name, devices)
        results[name] = [translation_retrieval(loaded, pairs) for pairs in held]
    if as_json:
        record = {
            "seed": seed,
            "encoders": {
                name: [result.to_json() for result in own] for name, own in results.items()
            },
        }
        click.echo(json.dumps(record, ensure_ascii=False, indent=1))
        return
    _print(results, held_out)


def _print(results: dict[str, list[TranslationResult]], held_out: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Translations found at rank 1 among {held_out:,}")
    table.add_column("encoder", overflow="fold")
    table.add_column("language")
    table.add_column("to English", justify="right")
    table.add_column("from English", justify="right")
    for name, own in results.items():
        for result in own:
            table.add_row(
                name, result.language, f"{result.to_english:.3f}", f"{result.from_english:.3f}"
            )
    Console().print(table)
