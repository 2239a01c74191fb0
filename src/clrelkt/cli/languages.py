"""``clrelkt languages``: teach an encoder languages that it has never seen."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clrelkt.cli.options import split_seed_option

if TYPE_CHECKING:
    from clrelkt.corpora.model import Corpus
    from clrelkt.corpora.pairs import SentencePairs
    from clrelkt.encoders import Encoder
    from clrelkt.training.languages import LanguageAddition, LanguageMeasure

__all__ = ["languages"]

_PROTECTED = 20_000
"""Sentences of each known language whose tokens are kept, at most."""


@click.group()
def languages() -> None:
    """Teach an encoder languages that it has never seen."""


@languages.command()
@click.argument("encoder")
@click.argument("codes", nargs=-1, required=True)
@click.option(
    "--parallel",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Sentence pairs: a TSV file, Moses files or a folder of them. Can be given repeatedly.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the new encoder.",
)
@click.option("--pieces", type=click.IntRange(min=1), help="Pieces a language. [default: 20000]")
@click.option(
    "--scope",
    type=click.Choice(["non-ascii", "all"]),
    help="Pieces with a letter beyond ASCII, or with any letter. [default: all]",
)
@click.option(
    "--start",
    type=click.Choice(["aligned", "segments"]),
    help="What a new piece's embedding starts as: that of the English tokens that it is aligned "
    "to, or of the old pieces that it replaces. [default: aligned]",
)
@click.option("--epochs", type=click.IntRange(min=0), help="[default: 12]")
@click.option("--batch", type=click.IntRange(min=2), help="Pairs a step. [default: 2048]")
@click.option("--learning-rate", type=float, help="Its highest value. [default: 0.005]")
@click.option("--temperature", type=float, help="Of the softmax. [default: 0.05]")
@click.option("--closeness", type=float, help="Weight of 1 - cosine. [default: 20]")
@click.option(
    "--refine-epochs",
    type=click.IntRange(min=0),
    help="Train all parameters for so many epochs more; the vectors of known languages then move "
    "a little. [default: 0]",
)
@click.option("--refine-rate", type=float, help="Their learning rate. [default: 0.0005]")
@click.option(
    "--held-out",
    type=click.IntRange(min=1),
    help="Sentences of each language to measure with. [default: 2000]",
)
@click.option(
    "--held-out-source",
    metavar="NAME",
    help="Hold out pairs from this source alone, as the third column of the TSV files names it.",
)
@click.option(
    "--questions",
    metavar="NAME|PATH",
    help="A corpus whose training questions are aligned with their English ones as well.",
)
@split_seed_option
@click.option(
    "--split-by",
    type=click.Choice(["question", "document"]),
    default="question",
    show_default=True,
    help="What stays on one side of the corpus's split.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--device", metavar="NAME", help="cpu or cuda. [default: cuda where there is one]")
@click.option(
    "--save-form",
    type=click.Choice(["delta", "delta-float16", "whole"]),
    help="What differs from the base (exact, or in float16 at half the size), or whole. "
    "[default: delta where the encoder has a published base]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def add(
    encoder: str,
    codes: tuple[str, ...],
    parallel: tuple[Path, ...],
    output: Path,
    questions: str | None,
    split_seed: int,
    split_by: Any,
    seed: int,
    device: str | None,
    save_form: Any,
    as_json: bool,
    **changes: Any,
) -> None:
    """Teach ENCODER the languages CODES (fi bn te) from sentence pairs with English.

    Only the embeddings of new pieces are trained, unless --refine-epochs is given: the languages
    that ENCODER knows stay as they are. English and other known sentences among the pairs keep
    their tokens, too.
    """
    from clrelkt.encoders import load_encoder
    from clrelkt.encoders.description import check_folder, chosen_form
    from clrelkt.training.device import choose_device
    from clrelkt.training.languages import LanguageSettings, add_languages

    choose_device(device)
    wanted = [code for value in codes for code in re.split(r"[,\s]+", value) if code]
    given = {name: value for name, value in changes.items() if value is not None}
    settings = LanguageSettings(**given)
    start = load_encoder(encoder)
    check_folder(output)
    form = chosen_form(start, save_form)
    pairs = _pairs(parallel, wanted, start)
    corpus = _training_questions(questions, split_seed, split_by) if questions else None
    addition = add_languages(
        start,
        pairs,
        settings,
        extra=_extra(corpus, wanted),
        protected=_protected(parallel, start, corpus),
        seed=seed,
        device=device,
        progress=True,
    )
    addition.save(output, form)
    if as_json:
        record = addition.to_json() | {"output": str(output)}
        click.echo(json.dumps(record, ensure_ascii=False, indent=1))
        return
    _print(addition)
    click.echo(f"the encoder and its record, languages.json: {output}")


def _pairs(
    paths: Sequence[Path], codes: Sequence[str], encoder: Encoder
) -> dict[str, SentencePairs]:
    from clrelkt.corpora.pairs import find_pairs
    from clrelkt.training.languages import FEW_PAIRS, check_languages

    check_languages(encoder, codes)
    pairs = find_pairs(paths, codes)
    for code, own in pairs.items():
        if len(own) < FEW_PAIRS:
            click.echo(
                f"warning: {code} has {len(own):,} sentence pairs; below {FEW_PAIRS:,} little can "
                "be learnt",
                err=True,
            )
    return pairs


def _training_questions(name: str, seed: int, by: Any) -> Corpus:
    from clrelkt.corpora import load_corpus, take_split

    return take_split(load_corpus(name), "train", seed=seed, by=by)


def _extra(corpus: Corpus | None, codes: Sequence[str]) -> dict[str, SentencePairs]:
    from clrelkt.corpora.pairs import question_pairs

    if corpus is None:
        return {}
    found = {code: question_pairs(corpus, code) for code in codes}
    missing = [code for code, own in found.items() if not len(own)]
    if missing:
        click.echo(
            f"note: {corpus.name} has no training questions in {', '.join(missing)} that are in "
            "English too",
            err=True,
        )
    return {code: own for code, own in found.items() if len(own)}


def _protected(paths: Sequence[Path], encoder: Encoder, corpus: Corpus | None) -> list[str]:
    """Return texts in languages that the encoder knows, of the pairs and of the corpus."""
    from clrelkt.corpora.pairs import find_pairs, pair_languages

    known = sorted(encoder.languages.intersection(pair_languages(paths)))
    found = find_pairs(paths, known) if known else {}
    texts = [text for own in found.values() for text in own.other[:_PROTECTED]]
    if corpus is not None:
        texts += [
            question.text for question in corpus.questions if question.language in encoder.languages
        ]
        texts += [passage.text for passage in corpus.passage_by_id.values()]
    return texts


def _print(addition: LanguageAddition) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Held-out sentences, before and after")
    for name in ("language", "pairs", "pieces", "unknown", "tokens a word", "found in English"):
        table.add_column(name, justify="left" if name == "language" else "right")
    for code, report in addition.reports.items():
        cells = zip(_cells(report.before), _cells(report.after), strict=True)
        table.add_row(
            code,
            f"{sum(report.pairs.values()):,}",
            f"{report.pieces:,}",
            *(f"{before} → {after}" for before, after in cells),
        )
    Console().print(table)


def _cells(measure: LanguageMeasure) -> tuple[str, str, str]:
    return (
        f"{measure.unknown:.1%}",
        f"{measure.tokens_per_word:.2f}",
        f"{measure.translation.to_english:.3f}",
    )
