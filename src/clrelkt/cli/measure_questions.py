"""``clrelkt measure mixed-pool`` and ``clrelkt measure sentences``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from clrelkt.cli.measuring import WithLanguages, languages_option, load_for_encoding
from clrelkt.cli.options import gpus_option

if TYPE_CHECKING:
    from rich.table import Table

    from clrelkt.corpora.model import Corpus
    from clrelkt.evaluation.significance import Comparison

__all__ = ["mixed_pool", "sentences"]

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class _Options:
    """What both commands are told."""

    encoder: str
    corpus: str
    languages: Sequence[str] | None
    split: Any
    split_seed: int
    split_by: Any
    against: str | None
    batch_tokens: int | None
    device: str | None
    gpus: int
    as_json: bool

    def questions(self) -> Corpus:
        """Read the corpus and take its split."""
        from clrelkt.corpora import load_corpus, take_split

        corpus = load_corpus(self.corpus)
        return take_split(corpus, self.split, seed=self.split_seed, by=self.split_by)

    def evaluate(self, evaluator: Callable[..., Any]) -> list[Any]:
        """Return what ``evaluator`` says of the encoder, and of the one that it stands against."""
        names = [self.encoder] if self.against is None else [self.encoder, self.against]
        # All are loaded before one is measured, so that a wrong name costs no time.
        how = self.device, self.batch_tokens, self.gpus
        loaded = [load_for_encoding(name, *how) for name in names]
        return [evaluator(encoder, encode) for encoder, encode in loaded]


def _corpus_options(command: Command) -> Command:
    """Add the arguments and options that say what is measured on what."""
    options = (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        gpus_option,
        click.option(
            "--device",
            type=click.Choice(["cpu", "cuda"]),
            help="[default: cuda where there is one]",
        ),
        click.option("--batch-tokens", type=click.IntRange(min=1), help="Tokens encoded at once."),
        click.option(
            "--against", metavar="ENCODER", help="Measure this one too, and compare the two."
        ),
        click.option(
            "--split-by",
            type=click.Choice(["question", "document"]),
            default="question",
            show_default=True,
            help="What stays on one side of the split.",
        ),
        click.option(
            "--split-seed", type=int, default=0, show_default=True, help="Seed of the split."
        ),
        click.option(
            "--split",
            type=click.Choice(["train", "dev", "test", "all"]),
            default="test",
            show_default=True,
            help="Which questions.",
        ),
        languages_option,
        click.argument("corpus"),
        click.argument("encoder"),
    )
    for option in options:
        command = option(command)
    return command


@click.command("mixed-pool", cls=WithLanguages)
@_corpus_options
def mixed_pool(**given: Any) -> None:
    """Search the passages of all languages at once (LAReQA).

    CORPUS must have its passages in several languages, as xquad has. Every version of the passage
    that answers a question is right: an encoder that prefers one language finds the others late.
    """
    from clrelkt.evaluation import MixedPoolEvaluator, compare_values
    from clrelkt.reports import mixed_pool_table

    options = _Options(**given)
    evaluator = MixedPoolEvaluator(
        options.questions(), split=options.split, languages=options.languages
    )
    found = options.evaluate(evaluator)
    comparison = None
    if len(found) > 1:
        first, second = found
        comparison = compare_values(
            first.question_values(),
            second.question_values(),
            first.groups,
            names=(first.encoder, second.encoder),
            metric="x_to_y/map",
        )
    _show(options, found, comparison, mixed_pool_table)


@click.command("sentences", cls=WithLanguages)
@_corpus_options
def sentences(**given: Any) -> None:
    """Tell which sentence of the right passage answers a question.

    Sentences are those that CORPUS marks, as xquad-r does, else those that ICU finds. The right
    one holds the answer's first character.
    """
    from clrelkt.evaluation import SentenceLevelEvaluator, compare
    from clrelkt.reports import sentence_table

    options = _Options(**given)
    evaluator = SentenceLevelEvaluator(
        options.questions(), split=options.split, languages=options.languages
    )
    found = options.evaluate(evaluator)
    comparison = None
    if len(found) > 1:
        comparison = compare(found[0].results, found[1].results)
    _show(options, found, comparison, sentence_table)


def _show(
    options: _Options,
    found: Sequence[Any],
    comparison: Comparison | None,
    table: Callable[[Any], Table],
) -> None:
    """Print tables, or one JSON object that holds the same."""
    if options.as_json:
        record = found[0].to_json()
        if comparison is not None:
            record |= {"against": found[1].to_json(), "comparison": comparison.to_json()}
        click.echo(json.dumps(record, ensure_ascii=False, indent=1))
        return
    from rich.console import Console

    from clrelkt.reports import comparison_table

    console = Console()
    for result in found:
        console.print(table(result))
        console.print()
    if comparison is not None:
        console.print(comparison_table(comparison))
