"""``clrelkt reader``: models that point at the words that answer a question."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clrelkt.cli.measuring import WithLanguages, languages_option, load_for_encoding
from clrelkt.cli.options import split_seed_option

if TYPE_CHECKING:
    from clrelkt.corpora.model import Corpus
    from clrelkt.reader import Reader, ReaderResults, ReadingTask, WindowSettings

__all__ = ["reader"]


@click.group()
def reader() -> None:
    """Train and evaluate readers: models that point at the words that answer a question."""


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option(
            "--device", metavar="NAME", help="cpu or cuda. [default: cuda where there is one]"
        ),
        click.option(
            "--stride",
            type=click.IntRange(min=0),
            default=128,
            show_default=True,
            help="Tokens that neighbouring windows of a passage share.",
        ),
        click.option(
            "--max-length",
            type=click.IntRange(min=32),
            default=384,
            show_default=True,
            help="Tokens of a window, the question's among them.",
        ),
        click.option(
            "--batch", type=click.IntRange(min=1), default=16, show_default=True, help="Windows."
        ),
        click.option(
            "--passages",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Passages that are retrieved for a question.",
        ),
        click.option(
            "--encoder", default="muse", show_default=True, help="What retrieves passages."
        ),
        click.option(
            "--split-by",
            type=click.Choice(["question", "document"]),
            default="question",
            show_default=True,
            help="What stays on one side of the split.",
        ),
        split_seed_option,
    )
    for option in options:
        command = option(command)
    return command


@reader.command(cls=WithLanguages)
@click.argument("model")
@click.argument("corpus")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the new reader.",
)
@languages_option
@click.option(
    "--split",
    type=click.Choice(["train", "all"]),
    default="train",
    show_default=True,
    help="Which questions it learns from; with train, dev is measured after each epoch.",
)
@click.option(
    "--context",
    type=click.Choice(["gold", "retrieved"]),
    default="gold",
    show_default=True,
    help="Gold passages alone, or also what an encoder finds beside them, which has no answer.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--learning-rate", type=float, default=3e-5, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--resume", is_flag=True, help="Go on with the training that was stopped there.")
@click.option(
    "--checkpoint-seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Write a checkpoint when this much time has passed since the last.",
)
@_shared
def train(
    model: str,
    corpus: str,
    output: Path,
    languages: tuple[str, ...] | None,
    split: Any,
    context: Any,
    epochs: int,
    learning_rate: float,
    seed: int,
    resume: bool,
    checkpoint_seconds: float,
    split_seed: int,
    split_by: Any,
    encoder: str,
    passages: int,
    batch: int,
    max_length: int,
    stride: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Train MODEL, a folder or a name on the model hub, to find the answers of CORPUS.

    MODEL is any encoder of Hugging Face (xlm-roberta-base) or a reader. The new reader is an
    ordinary folder of Hugging Face.
    """
    from clrelkt.reader import (
        ReaderSettings,
        ReaderTraining,
        TrainingSettings,
        load_for_training,
        train_reader,
        training_pairs,
    )
    from clrelkt.training.device import choose_device

    chosen = choose_device(device)
    windows = _windows(max_length, stride)
    questions = _questions(corpus, split, split_seed, split_by, languages)
    found = _tasks(questions, "retrieved", encoder, passages, device) if context != "gold" else []
    pairs = training_pairs(questions, found)
    settings = ReaderSettings(windows=windows, batch=batch)
    learner = load_for_training(model, settings, seed=seed, device=chosen)
    dev = None
    if split == "train":
        dev = _measure(
            _questions(corpus, "dev", split_seed, split_by, languages),
            (context, encoder, passages, device),
        )
    described = {
        "model": model,
        "corpus": questions.name,
        "languages": list(questions.languages),
        "split": [split, split_seed, split_by],
        "context": [context, encoder, passages] if context != "gold" else ["gold"],
    }
    results = train_reader(
        learner,
        pairs,
        ReaderTraining(
            folder=output,
            described=described,
            settings=TrainingSettings(epochs, learning_rate, batch, windows=windows),
            seed=seed,
            resume=resume,
            checkpoint_seconds=checkpoint_seconds,
            progress=True,
            dev=dev,
        ),
    )
    if as_json:
        record = {"output": str(output), "dev": None if results is None else results.to_json()}
        click.echo(json.dumps(record, ensure_ascii=False, indent=1))
        return
    if results is not None:
        _print(results, f"{output} on {questions.name}, dev questions")
    click.echo(f"the reader and its record, reader.json: {output}")


@reader.command(cls=WithLanguages)
@click.argument("model")
@click.argument("corpus")
@languages_option
@click.option(
    "--split",
    type=click.Choice(["train", "dev", "test", "all"]),
    default="test",
    show_default=True,
    help="Which questions.",
)
@click.option(
    "--context",
    type=click.Choice(["gold", "retrieved"]),
    default="gold",
    show_default=True,
    help="Read the gold passage, or what an encoder finds.",
)
@click.option(
    "--normalisation",
    type=click.Choice(["squad", "mlqa"]),
    default="squad",
    show_default=True,
    help="Whose rules say when two answers are the same (XQuAD's are SQuAD's).",
)
@click.option(
    "--answers-in",
    metavar="CODE",
    help="Language of the passages, for MLQA's rules. [default: as the corpus says]",
)
@click.option(
    "--no-answer-threshold",
    type=float,
    help="Give no answer where 'none' scores this much more. [default: always an answer]",
)
@click.option(
    "--predictions",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write every answer to this file: one JSON object a line.",
)
@_shared
def evaluate(
    model: str,
    corpus: str,
    languages: tuple[str, ...] | None,
    split: Any,
    context: Any,
    normalisation: Any,
    answers_in: str | None,
    no_answer_threshold: float | None,
    predictions: Path | None,
    split_seed: int,
    split_by: Any,
    encoder: str,
    passages: int,
    batch: int,
    max_length: int,
    stride: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Measure how well MODEL, a reader, answers the questions of CORPUS: exact match and F1."""
    from clrelkt.reader import ReaderSettings, evaluate_reader, load_reader
    from clrelkt.training.device import choose_device

    settings = ReaderSettings(
        windows=_windows(max_length, stride), batch=batch, no_answer_threshold=no_answer_threshold
    )
    questions = _questions(corpus, split, split_seed, split_by, languages)
    loaded = load_reader(model, settings, device=choose_device(device))
    results = evaluate_reader(
        loaded,
        _tasks(questions, context, encoder, passages, device),
        answer_language=answers_in or questions.document_language,
        context=context,
        normalisation=normalisation,
        progress=True,
    )
    if as_json:
        record = results.to_json() | {"corpus": questions.name, "split": split}
        click.echo(json.dumps(record, ensure_ascii=False, indent=1))
    else:
        _print(results, f"{model} on {questions.name}, {split} questions")
    # After the figures, which are not to be lost when the file cannot be written.
    if predictions is not None:
        _write_predictions(predictions, results)


def _windows(max_length: int, stride: int) -> WindowSettings:
    from clrelkt.reader import WindowSettings

    return WindowSettings(max_length, stride, min(64, max_length // 4))


def _questions(
    name: str, split: Any, seed: int, by: Any, languages: Sequence[str] | None
) -> Corpus:
    from clrelkt.corpora import load_corpus, take_split

    corpus = take_split(load_corpus(name), split, seed=seed, by=by)
    return corpus if languages is None else corpus.in_languages(languages)


def _tasks(
    corpus: Corpus, context: str, encoder: str, passages: int, device: str | None
) -> list[ReadingTask]:
    from clrelkt.reader import gold_tasks, retrieved_tasks

    if context == "gold":
        return gold_tasks(corpus)
    _, encode = load_for_encoding(encoder, device)
    return retrieved_tasks(corpus, encode, passages=passages)


def _measure(
    corpus: Corpus, how: tuple[Any, str, int, str | None]
) -> Callable[[Reader], ReaderResults]:
    from clrelkt.reader import evaluate_reader

    tasks = _tasks(corpus, *how)

    def measure(learner: Reader) -> ReaderResults:
        return evaluate_reader(
            learner, tasks, answer_language=corpus.document_language, context=how[0]
        )

    return measure


def _write_predictions(path: Path, results: ReaderResults) -> None:
    from clrelkt.files import write_text

    lines = (json.dumps(p.to_json(), ensure_ascii=False) + "\n" for p in results.predictions)
    write_text(path, "".join(lines))
    click.echo(f"{path}: {len(results.predictions)} answers", err=True)


def _print(results: ReaderResults, what: str) -> None:
    from rich.console import Console

    from clrelkt.reports import reader_table

    Console().print(reader_table(results, what))
