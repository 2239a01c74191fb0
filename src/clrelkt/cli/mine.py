"""``clrelkt mine``: negatives for questions, with BM25 or an encoder, at any scale."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from clrelkt.cli.options import gpus_option

if TYPE_CHECKING:
    import torch

    from clrelkt.mining.chunks import ChunkFolder
    from clrelkt.mining.jobs import BM25Job, DenseJob, SetVectors
    from clrelkt.mining.sets import MiningSet
    from clrelkt.mining.triplets import Granularity

__all__ = ["mine"]

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group()
def mine() -> None:
    """Mine negatives: texts that look like an answer to a question and are none.

    Questions and passages are those of a CORPUS, or of two JSON Lines files: a line of
    --passages is {"id", "text"} with "document", the id of what it is a part of, where there is
    one; a line of --questions is {"id", "text", "positive_ids": [...]}.

    The result has a line or row a triplet: question_id, positive_id, negative_id, and why it is a
    negative (kind). Chunks that are finished are kept beside it, in OUTPUT.parts: a killed run
    goes on with --resume, to the same result.
    """


def _shared(command: Command) -> Command:
    """Add what both ways of mining take."""
    options = (
        click.argument("corpus", required=False),
        click.option("--questions", type=click.Path(path_type=Path), metavar="FILE"),
        click.option("--passages", type=click.Path(path_type=Path), metavar="FILE"),
        click.option(
            "-o",
            "--output",
            required=True,
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Where the triplets go: a name that ends in .jsonl or .parquet.",
        ),
        click.option(
            "--granularity",
            type=click.Choice(["document", "passage"]),
            default="passage",
            show_default=True,
            help="What a candidate is, of a corpus.",
        ),
        click.option("--language", "languages", multiple=True, metavar="CODE", help="Only these."),
        click.option(
            "--split",
            type=click.Choice(["train", "dev", "test", "all"]),
            default="all",
            show_default=True,
            help="Which questions of a corpus.",
        ),
        click.option("--split-seed", type=int, default=0, show_default=True),
        click.option("--texts", is_flag=True, help="Put the texts beside the ids."),
        click.option("--resume", is_flag=True, help="Go on where a killed run stopped."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@mine.command()
@_shared
@click.option("--per-question", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--first-rank",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Pass over what ranks above this.",
)
@click.option("--rows", type=click.IntRange(min=1), default=8192, help="Questions in a chunk.")
def bm25(
    corpus: str | None,
    questions: Path | None,
    passages: Path | None,
    output: Path,
    granularity: Granularity,
    languages: tuple[str, ...],
    split: str,
    split_seed: int,
    texts: bool,
    resume: bool,
    as_json: bool,
    per_question: int,
    first_rank: int,
    rows: int,
) -> None:
    """Mine with BM25 over words of any script, on all cores.

    Questions of a corpus are asked in the language of its documents.
    """
    from clrelkt.mining.bm25 import BM25Mining
    from clrelkt.mining.jobs import BM25Job
    from clrelkt.mining.output import check_output
    from clrelkt.text.words import IcuWords

    started = time.perf_counter()
    check_output(output)
    settings = BM25Mining(per_question, first_rank, granularity)
    given = _sets(corpus, questions, passages, granularity, languages, (split, split_seed), True)
    plan = {"method": "bm25", "settings": asdict(settings), "words": repr(IcuWords())}
    folder = _folder(output, given, plan | {"rows": rows}, resume)
    jobs = [BM25Job(one, settings, IcuWords(), rows) for one in given]
    for job in jobs:
        job.run(folder, _bar)
    _finish(output, given, jobs, folder, texts, as_json, started)


@mine.command()
@_shared
@click.option("--encoder", metavar="NAME|FOLDER", help="Encode questions and passages with this.")
@click.option(
    "--question-vectors",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Instead: a NumPy file, a row a line of --questions.",
)
@click.option(
    "--passage-vectors",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The same for --passages.",
)
@click.option("--hard", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--semi-hard", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--margin", type=float, default=0.24, show_default=True, help="How far semi-hard ones go."
)
@click.option("--distance", type=click.Choice(["cosine", "euclidean"]), default="cosine")
@click.option(
    "--choose",
    type=click.Choice(["nearest", "random"]),
    default="random",
    show_default=True,
    help="Which of those that qualify.",
)
@click.option(
    "--false-negative-ratio",
    type=float,
    metavar="R",
    help="Leave out what is more similar than R times the answer, for example 0.95.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides random choice.")
@click.option("--device", metavar="NAME", help="cpu or cuda. [default: cuda where there is one]")
@gpus_option
@click.option(
    "--memory",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GB",
    help="Passages' vectors on a device. [default: three quarters of what is free there]",
)
@click.option(
    "--screen",
    type=click.Choice(["auto", "plain", "two-pass", "fused"]),
    default="auto",
    help="How scores are looked at; the result is the same.",
)
@click.option("--rows", type=click.IntRange(min=1), default=65536, help="Questions in a chunk.")
def dense(
    corpus: str | None,
    questions: Path | None,
    passages: Path | None,
    output: Path,
    granularity: Granularity,
    languages: tuple[str, ...],
    split: str,
    split_seed: int,
    texts: bool,
    resume: bool,
    as_json: bool,
    encoder: str | None,
    question_vectors: Path | None,
    passage_vectors: Path | None,
    device: str | None,
    gpus: int,
    memory: float | None,
    screen: Any,
    seed: int,
    rows: int,
    **mining: Any,
) -> None:
    """Mine with an encoder, or with vectors that are there already.

    A negative is hard where it is nearer to the question than the answer, and semi-hard where it
    is farther by less than the margin.
    """
    from clrelkt.mining.dense import DenseMining
    from clrelkt.mining.jobs import DenseJob
    from clrelkt.mining.output import check_output
    from clrelkt.training.device import choose_devices

    started = time.perf_counter()
    check_output(output)
    _check_source(encoder, question_vectors, passage_vectors, corpus)
    settings = DenseMining(granularity=granularity, **mining)
    places = choose_devices(device, gpus)
    given = _sets(corpus, questions, passages, granularity, languages, (split, split_seed), False)
    plan = {"method": "dense", "settings": asdict(settings), "seed": seed, "rows": rows}
    bytes_ = None if memory is None else int(memory * 1e9)
    jobs = [DenseJob(one, settings, seed, rows, places, bytes_, screen) for one in given]
    if encoder is None:
        assert question_vectors is not None
        assert passage_vectors is not None
        plan |= _digests(question_vectors, passage_vectors)
        folder = _folder(output, given, plan, resume)
        jobs[0].run(_given_vectors(given[0], question_vectors, passage_vectors), folder, _bar)
    else:
        folder = _encode_and_mine(jobs, encoder, places, output, plan, resume)
    _finish(output, given, jobs, folder, texts, as_json, started)


def _encode_and_mine(
    jobs: Sequence[DenseJob],
    encoder: str,
    devices: Sequence[torch.device],
    output: Path,
    plan: dict[str, Any],
    resume: bool,
) -> ChunkFolder:
    from clrelkt.cli.measuring import load_onto
    from clrelkt.mining.jobs import SetVectors

    loaded = load_onto(encoder, devices)
    folder = _folder(
        output, [job.given for job in jobs], plan | {"encoder": loaded.weights}, resume
    )
    for job in jobs:
        job.run(SetVectors.encoded(job.given, loaded, folder, _bar), folder, _bar)
    return folder


def _check_source(
    encoder: str | None, questions: Path | None, passages: Path | None, corpus: str | None
) -> None:
    from clrelkt.errors import SettingsError

    vectors = questions is not None and passages is not None
    if (encoder is None) != vectors or (questions is None) != (passages is None):
        raise SettingsError(
            "either --encoder, or both --question-vectors and --passage-vectors expected"
        )
    if vectors and corpus is not None:
        raise SettingsError(
            "vectors go with --questions and --passages, a row a line; name no corpus"
        )


def _digests(questions: Path, passages: Path) -> dict[str, str]:
    from clrelkt.mining.vectors import file_digest

    return {"question_vectors": file_digest(questions), "passage_vectors": file_digest(passages)}


def _given_vectors(given: MiningSet, questions: Path, passages: Path) -> SetVectors:
    from clrelkt.errors import DataError
    from clrelkt.mining.jobs import SetVectors
    from clrelkt.mining.vectors import read_vectors

    asked = read_vectors(questions, len(set(given.question_ids)), "questions")
    candidates = read_vectors(passages, len(given.candidate_ids), "passages")
    if asked.shape[1] != candidates.shape[1]:
        raise DataError(
            f"{questions} has vectors of dimension {asked.shape[1]}, {passages} of "
            f"{candidates.shape[1]}; encode both with the same encoder"
        )
    return SetVectors(asked, candidates)


def _sets(
    corpus: str | None,
    questions: Path | None,
    passages: Path | None,
    granularity: Granularity,
    languages: tuple[str, ...],
    split: tuple[str, int],
    in_document_language: bool,
) -> list[MiningSet]:
    from clrelkt.corpora import load_corpus, take_split
    from clrelkt.errors import SettingsError
    from clrelkt.mining.sets import read_mining_set, sets_of_corpus

    files = questions is not None and passages is not None
    if (corpus is None) != files or (questions is None) != (passages is None):
        raise SettingsError("either a CORPUS, or both --questions and --passages expected")
    if questions is not None and passages is not None:
        if languages or split[0] != "all":
            raise SettingsError("--language and --split go with a CORPUS, not with files")
        return [read_mining_set(questions, passages)]
    loaded = load_corpus(corpus or "")
    taken = loaded if split[0] == "all" else take_split(loaded, split[0], seed=split[1])  # type: ignore[arg-type]
    asked = taken.in_languages(languages).questions if languages else taken.questions
    return sets_of_corpus(
        taken, granularity, asked=asked, in_document_language=in_document_language
    )


def _folder(
    output: Path, given: Sequence[MiningSet], plan: dict[str, Any], resume: bool
) -> ChunkFolder:
    from clrelkt.mining.chunks import ChunkFolder

    parts = output.with_name(output.name + ".parts")
    return ChunkFolder(parts, plan | {"data": [one.digest() for one in given]}, resume=resume)


def _finish(
    output: Path,
    given: Sequence[MiningSet],
    jobs: Sequence[BM25Job | DenseJob],
    folder: ChunkFolder,
    texts: bool,
    as_json: bool,
    started: float,
) -> None:
    """Write the triplets, then delete the chunks, and say what was found."""
    from clrelkt.mining.jobs import texts_by_id
    from clrelkt.mining.output import Mined, write_mined

    kinds: dict[str, int] = {}
    answered: set[str] = set()

    def counted() -> Iterator[Mined]:
        for job in jobs:
            for row in job.mined(folder):
                kinds[row.kind] = kinds.get(row.kind, 0) + 1
                answered.add(row.question_id)
                yield row

    count = write_mined(output, counted(), texts_by_id(given) if texts else None)
    folder.remove()
    asked = len({id_ for one in given for id_ in one.question_ids})
    found = {
        "output": str(output),
        "triplets": count,
        "kinds": kinds,
        "questions": asked,
        "without_negative": asked - len(answered),
        "candidates": sum(len(one.candidate_ids) for one in given),
        "seconds": round(time.perf_counter() - started, 3),
    }
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    by_kind = ", ".join(f"{number:,} {kind}" for kind, number in kinds.items())
    click.echo(f"{count:,} triplets ({by_kind or 'none'}) in {output}")
    click.echo(
        f"{asked:,} questions, {found['without_negative']:,} of them without a negative; "
        f"{found['candidates']:,} candidates; {found['seconds']:,} s"
    )


def _bar(label: str, total: int, unit: str) -> AbstractContextManager[Callable[[int], None]]:
    from clrelkt.progress import progress_bar

    return progress_bar(label, total=total, unit=unit)
