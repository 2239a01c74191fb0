"""``clrelkt evaluate``: how well an encoder finds the answers of a corpus."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clrelkt.cli.measuring import WithLanguages, languages_option, load_for_encoding
from clrelkt.cli.options import gpus_option

if TYPE_CHECKING:
    from clrelkt.corpora.model import Corpus
    from clrelkt.encoders.protocol import Encoder
    from clrelkt.evaluation.results import Results
    from clrelkt.evaluation.retrieval import EvaluationSettings, RetrievalEvaluator
    from clrelkt.evaluation.seeds import SeedSummary
    from clrelkt.evaluation.significance import Comparison
    from clrelkt.mining.texts import Encode

__all__ = ["evaluate"]


@dataclass(frozen=True, slots=True)
class _Found:
    """An evaluation, and what was asked for beside it."""

    results: Results
    intervals: SeedSummary
    second: Results | None
    comparison: Comparison | None
    baseline: Results | None


@click.command(cls=WithLanguages)
@click.argument("encoder")
@click.argument("corpus")
@languages_option
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
@click.option(
    "--against",
    metavar="ENCODER",
    help="Compare with this encoder: difference, interval, and p by a paired randomisation test.",
)
@click.option(
    "--metric",
    type=click.Choice(["hit_rate@1", "hit_rate@5", "hit_rate@10", "mrr@10"]),
    default="hit_rate@1",
    show_default=True,
    help="What --against compares.",
)
@click.option(
    "--errors",
    "errors_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write wrong answers, with a guess at their cause, to this file: one JSON object a line.",
)
@click.option(
    "--errors-limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="How many wrong answers at most, drawn evenly over the languages.",
)
@click.option("--bm25", "with_bm25", is_flag=True, help="Add BM25 with the English question.")
@click.option("--batch-tokens", type=click.IntRange(min=1), help="Tokens encoded at once.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda where there is one]"
)
@gpus_option
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
    against: str | None,
    metric: Any,
    errors_file: Path | None,
    errors_limit: int,
    with_bm25: bool,
    batch_tokens: int | None,
    device: str | None,
    gpus: int,
    as_json: bool,
) -> None:
    """Measure how often ENCODER finds the document that answers a question of CORPUS.

    ENCODER is muse, muse-8bit or the folder of a saved encoder. CORPUS is a name that clrelkt
    data list shows, or a path. Each language's questions are searched in its own English
    documents. Intervals (95 %) are over the questions.
    """
    from clrelkt.corpora import load_corpus, take_split
    from clrelkt.evaluation import EvaluationSettings, RetrievalEvaluator, aggregate, compare
    from clrelkt.evaluation.encoding import remembered

    questions = take_split(load_corpus(corpus), split, seed=split_seed, by=split_by)
    questions = _leave_out(questions, left_out, trained_on)
    settings = EvaluationSettings(pool, document_score)
    evaluator = RetrievalEvaluator(questions, settings, split=split, languages=languages)
    loaded, encode = load_for_encoding(encoder, device, batch_tokens, gpus)
    # Loaded before anything is measured, so that a wrong name costs no time.
    other = None
    if against is not None:
        other = load_for_encoding(against, device, batch_tokens, gpus)
    if errors_file is not None:
        encode = remembered(encode)
    results = evaluator(loaded, encode)
    second = comparison = baseline = None
    if other is not None:
        second = evaluator(*other)
        comparison = compare(results, second, metric)
    if with_bm25:
        baseline = _bm25(questions, settings, split, languages, loaded)
    found = _Found(results, aggregate([results]), second, comparison, baseline)
    if as_json:
        click.echo(json.dumps(_as_json(found), ensure_ascii=False, indent=1))
    else:
        _print(found)
    # After the figures, which are not to be lost when the file cannot be written.
    if errors_file is not None:
        _write_errors(errors_file, evaluator, results, encode, errors_limit)


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


def _write_errors(
    path: Path, evaluator: RetrievalEvaluator, results: Results, encode: Encode, limit: int
) -> None:
    """Write wrong answers, and say on standard error how many and why."""
    from collections import Counter

    from clrelkt.evaluation.errors import CAUSES, find_errors, write_errors

    errors = find_errors(evaluator, results, encode, limit=limit)
    write_errors(path, errors)
    counts = Counter(error.cause for error in errors)
    causes = ", ".join(f"{cause} {counts[cause]}" for cause in CAUSES if counts[cause])
    click.echo(f"{path}: {len(errors)} wrong answers{causes and f' ({causes})'}", err=True)


def _as_json(found: _Found) -> dict[str, Any]:
    """Return what was found; keys that were not asked for are missing."""
    record = found.results.to_json()
    summary = found.intervals.to_json()
    record["intervals"] = {key: summary[key] for key in ("languages", "mean", "means")}
    if found.comparison is not None and found.second is not None:
        record["against"] = found.second.to_json()
        record["comparison"] = found.comparison.to_json()
    if found.baseline is not None:
        record["bm25"] = found.baseline.to_json()
    return record


def _print(found: _Found) -> None:
    from rich.console import Console

    from clrelkt.evaluation import aggregate
    from clrelkt.reports import comparison_table, results_table

    console = Console()
    console.print(results_table(found.results, found.intervals))
    for other in (found.second, found.baseline):
        if other is not None:
            console.print("", results_table(other, aggregate([other])))
    if found.comparison is not None:
        console.print("", comparison_table(found.comparison))
