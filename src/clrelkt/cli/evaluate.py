"""``clrelkt evaluate``: how well an encoder finds the answers of a corpus."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from clrelkt.corpora.model import Corpus
    from clrelkt.encoders.protocol import Encoder
    from clrelkt.evaluation.results import Results
    from clrelkt.evaluation.retrieval import EvaluationSettings
    from clrelkt.mining.texts import Encode

__all__ = ["evaluate"]

_CODES = re.compile(r"[a-z]{2}(,[a-z]{2})*,?")


class _WithLanguages(click.Command):
    """A command whose ``--languages`` takes several codes: ``de ru``, ``de,ru`` or twice."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _repeat_option(args, "--languages"))


def _repeat_option(args: Sequence[str], option: str) -> list[str]:
    """Put ``option`` before each further language code that follows its first value."""
    repeated: list[str] = []
    place = 0
    while place < len(args):
        repeated.append(args[place])
        place += 1
        if repeated[-1] != option or place == len(args):
            continue
        repeated.append(args[place])
        place += 1
        while place < len(args) and _CODES.fullmatch(args[place]):
            repeated += [option, args[place]]
            place += 1
    return repeated


def _split_codes(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...] | None:
    codes = [code for value in values for code in re.split(r"[,\s]+", value) if code]
    if values and not codes:
        raise click.BadParameter("at least one language code expected, for example de,ru")
    return tuple(dict.fromkeys(codes)) or None


@click.command(cls=_WithLanguages)
@click.argument("encoder")
@click.argument("corpus")
@click.option(
    "--languages",
    multiple=True,
    callback=_split_codes,
    metavar="CODES",
    help="Only these question languages: de,ru or de ru. [default: all]",
)
@click.option(
    "--pool",
    type=click.Choice(["document", "passage"]),
    default="document",
    show_default=True,
    help="What the gold is looked for among.",
)
@click.option(
    "--document-score",
    type=click.Choice(["whole", "best-passage"]),
    default="whole",
    show_default=True,
    help="Score a document as one text, or by its best passage.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "dev", "test", "all"]),
    default="test",
    show_default=True,
    help="Which questions.",
)
@click.option("--split-seed", type=int, default=0, show_default=True, help="Seed of the split.")
@click.option(
    "--split-by",
    type=click.Choice(["question", "document"]),
    default="question",
    show_default=True,
    help="What stays on one side of the split.",
)
@click.option(
    "--leave-out",
    "left_out",
    multiple=True,
    metavar="TITLE",
    help="Leave out a document, by title or id, and its questions. May stand several times.",
)
@click.option(
    "--leave-out-shared-with",
    "trained_on",
    metavar="CORPUS",
    help="Leave out what clrelkt data overlap finds in this corpus too.",
)
@click.option("--bm25", "with_bm25", is_flag=True, help="Add BM25 with the English question.")
@click.option("--batch-tokens", type=click.IntRange(min=1), help="Tokens encoded at once.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda where there is one]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(
    encoder: str,
    corpus: str,
    languages: tuple[str, ...] | None,
    pool: Any,
    document_score: Any,
    split: Any,
    split_seed: int,
    split_by: Any,
    left_out: tuple[str, ...],
    trained_on: str | None,
    with_bm25: bool,
    batch_tokens: int | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Measure how often ENCODER finds the document that answers a question of CORPUS.

    ENCODER is muse, muse-8bit or the folder of a saved encoder. CORPUS is a name that clrelkt
    data list shows, or a path. Each language's questions are searched in its own English
    documents.
    """
    from clrelkt.corpora import load_corpus, take_split
    from clrelkt.evaluation import EvaluationSettings, RetrievalEvaluator

    questions = take_split(load_corpus(corpus), split, seed=split_seed, by=split_by)
    questions = _leave_out(questions, left_out, trained_on)
    settings = EvaluationSettings(pool, document_score)
    evaluator = RetrievalEvaluator(questions, settings, split=split, languages=languages)
    loaded, encode = _encoder(encoder, device, batch_tokens)
    results = evaluator(loaded, encode)
    baseline = None
    if with_bm25:
        baseline = _bm25(questions, settings, split, languages, loaded)
    if as_json:
        click.echo(json.dumps(_as_json(results, baseline), ensure_ascii=False, indent=1))
    else:
        _print(results, baseline)


def _leave_out(corpus: Corpus, named: Sequence[str], trained_on: str | None) -> Corpus:
    """Drop documents after the split is drawn, so that the other questions stay where they are."""
    from clrelkt.corpora import load_corpus, shared_documents
    from clrelkt.errors import DataError

    names = list(named)
    if trained_on is not None:
        shared = shared_documents(corpus, load_corpus(trained_on))
        names += dict.fromkeys(overlap.document_id for overlap in shared)
    if not names:
        return corpus
    kept = corpus.without_documents(names)
    if not kept.questions:
        raise DataError(f"{corpus.name}: no question is left when {len(names)} documents go")
    gone = [document for document in corpus.documents if document.id not in kept.document_by_id]
    questions = len(corpus.questions) - len(kept.questions)
    titles = ", ".join(dict.fromkeys(document.title for document in gone))
    click.echo(f"left out: {len(gone)} documents, {questions} questions: {titles}", err=True)
    # Tables and JSON shall not pass for those of the whole corpus.
    return replace(kept, name=f"{corpus.name} without {len(gone)} documents")


def _encoder(name: str, device: str | None, batch_tokens: int | None) -> tuple[Encoder, Encode]:
    """Load an encoder onto its device, with the function that encodes and shows progress."""
    import torch

    from clrelkt.encoders import load_encoder
    from clrelkt.errors import SettingsError
    from clrelkt.evaluation.encoding import within_budget

    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--device cuda: torch finds no CUDA device here; use --device cpu")
    encoder = load_encoder(name).to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if batch_tokens is None:
        return encoder, partial(encoder.encode, progress=True)
    return encoder, within_budget(encoder, batch_tokens)


def _bm25(
    corpus: Corpus,
    settings: EvaluationSettings,
    split: str,
    languages: Sequence[str] | None,
    encoder: Encoder,
) -> Results:
    from clrelkt.evaluation import evaluate_bm25
    from clrelkt.text import IcuWords

    return evaluate_bm25(
        corpus, settings, IcuWords(), split=split, languages=languages, known=encoder.languages
    )


def _as_json(results: Results, baseline: Results | None) -> dict[str, Any]:
    record = results.to_json()
    return record if baseline is None else {**record, "bm25": baseline.to_json()}


def _print(results: Results, baseline: Results | None) -> None:
    from rich.console import Console

    from clrelkt.reports import results_table

    console = Console()
    console.print(results_table(results))
    if baseline is not None:
        console.print("", results_table(baseline))
