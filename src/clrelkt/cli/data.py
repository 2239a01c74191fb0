"""``clrelkt data``: the corpora and weights that are known by name, and checks of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clrelkt.cli.measuring import WithLanguages, languages_option

if TYPE_CHECKING:
    from clrelkt.corpora.catalogue import CatalogueEntry
    from clrelkt.corpora.check import Inspection
    from clrelkt.corpora.fetch import Fetched
    from clrelkt.corpora.overlap import Overlap
    from clrelkt.text.question_translation import TranslationReport

__all__ = ["data"]


@click.group()
def data() -> None:
    """List, get and check corpora."""


@data.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def list_(as_json: bool) -> None:
    """List the corpora and weights that are known by name."""
    from clrelkt.corpora.catalogue import known_corpora

    if as_json:
        rows = [_row(entry) for entry in known_corpora()]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for entry in known_corpora():
        size = f"{entry.download_size / 1e6:.1f} MB to fetch: clrelkt data get {entry.name}"
        click.echo(f"{entry.name:<10} {entry.licence:<13} {'here' if _is_here(entry) else size}")
        for detail in (entry.description, " ".join(entry.languages)):
            if detail:
                click.echo(click.wrap_text(detail, 78, "  ", "  "))


@data.command()
@click.argument("name")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Take files that you already have; they are checked as downloads are.",
)
def get(name: str, source: Path | None) -> None:
    """Get the corpus or the weights called NAME.

    Downloads go on where they stopped, and a file with a wrong checksum is refused.
    """
    from clrelkt.corpora.catalogue import catalogue_entry

    entry = catalogue_entry(name)
    if not entry.files:
        click.echo(f"{name} comes with clrelkt; there is nothing to get.")
        return
    fetched = _fetch(entry, source)
    click.echo(f"{name}: {fetched.folder}")
    if fetched.missing:
        click.echo(f"not in {source}: {' '.join(fetched.missing)}", err=True)


@data.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option(
    "--at-most",
    multiple=True,
    metavar="KIND=N",
    help="At most so many pairs of a kind: sentences, docs, ui_docs_po, dict. Repeatable.",
)
@click.option("--languages", metavar="CODES", help="Only these: el,hi. [default: all]")
def pairs(source: Path, output: Path, at_most: tuple[str, ...], languages: str | None) -> None:
    """Write the sentence pairs of SOURCE, or some of each kind, as LANG/KIND.tsv.

    Which pairs are taken depends on their texts alone.
    """
    from clrelkt.corpora.pairs import (
        KINDS,
        find_pairs,
        pair_languages,
        thin_pairs,
        write_pairs,
    )

    most: dict[str, int] = {}
    for given in at_most:
        kind, _, number = given.partition("=")
        if kind not in KINDS or not number.isdecimal():
            raise click.BadParameter(
                f"{given!r}: KIND=N expected, KIND one of {', '.join(KINDS)}",
                param_hint="--at-most",
            )
        most[kind] = int(number)
    codes = languages.split(",") if languages else pair_languages([source])
    for code, own in find_pairs([source], [code for code in codes if code]).items():
        thinned = thin_pairs(own, most)
        write_pairs(thinned, output)
        counts = ", ".join(f"{thinned.kinds.count(k)} {k}" for k in KINDS if k in thinned.kinds)
        click.echo(f"{code}: {counts}")


@data.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def check(context: click.Context, path: Path, as_json: bool) -> None:
    """Print every fault of PATH, a file or a folder; exit with 1 when there is any."""
    from clrelkt.corpora.check import inspect_path

    inspection = inspect_path(path)
    if as_json:
        click.echo(json.dumps(_as_json(path, inspection), ensure_ascii=True, indent=1))
    else:
        _print(inspection)
    if inspection.faults:
        context.exit(1)


@data.command()
@click.argument("corpus")
@click.argument("other")
@click.option(
    "--words",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="The shortest run of words that counts as shared.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def overlap(corpus: str, other: str, words: int, as_json: bool) -> None:
    """List the documents of CORPUS that share a title or a run of words with OTHER.

    Both are names that clrelkt data list shows, or paths. To test on CORPUS what was trained on
    OTHER: clrelkt evaluate ENCODER CORPUS --leave-out-shared-with OTHER.
    """
    from dataclasses import asdict

    from clrelkt.corpora import load_corpus, shared_documents

    found = shared_documents(load_corpus(corpus), load_corpus(other), shingle=words)
    if as_json:
        rows = [asdict(overlap) for overlap in found]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    _print_overlaps(found)


@data.command(cls=WithLanguages)
@click.argument("corpus")
@click.option(
    "--model",
    required=True,
    metavar="NAME|FOLDER",
    help="Marian, M2M100 or NLLB; {language} in it stands for the questions' language.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="[default: translations.jsonl in CORPUS where that is a folder, FILE.translations.jsonl "
    "beside a file, NAME-translations.jsonl here for a known corpus]",
)
@languages_option
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--beams", type=click.IntRange(min=1), help="[default: the model's own]")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--limit", type=click.IntRange(min=0), help="Translate so many questions, no more.")
@click.option("--device", metavar="NAME", help="cpu or cuda. [default: cuda where there is one]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def translate(
    corpus: str,
    model: str,
    output: Path | None,
    languages: tuple[str, ...] | None,
    batch: int,
    beams: int | None,
    max_new_tokens: int,
    limit: int | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Translate the questions of CORPUS that nobody has translated into the documents' language.

    The transfer stage of training needs each question in that language. Stopped, the same command
    goes on where it was. Every line of the output says which model it is from.
    """
    from dataclasses import asdict

    from clrelkt.corpora import load_corpus
    from clrelkt.text.machine_translation import GenerationSettings, TranslationModels
    from clrelkt.text.question_translation import translate_questions
    from clrelkt.training.device import choose_device

    loaded = load_corpus(corpus, translations=False)
    models = TranslationModels(
        model,
        target=loaded.document_language,
        settings=GenerationSettings(beams, max_new_tokens),
        device=choose_device(device).type,
    )
    report = translate_questions(
        loaded,
        output or _translations_path(corpus),
        models,
        batch=batch,
        languages=languages,
        limit=limit,
    )
    if as_json:
        shown = {**asdict(report), "path": str(report.path)}
        click.echo(json.dumps(shown, ensure_ascii=False, indent=1))
        return
    _print_report(report)


def _translations_path(corpus: str) -> Path:
    from clrelkt.corpora.catalogue import known_corpora
    from clrelkt.corpora.translations import translations_beside

    if corpus in {entry.name for entry in known_corpora()}:
        return Path(f"{corpus}-translations.jsonl")
    return translations_beside(Path(corpus))


def _print_report(report: TranslationReport) -> None:
    counts = "  ".join(f"{code} {count}" for code, count in report.languages.items())
    click.echo(f"{report.path}: {sum(report.languages.values())} translations: {counts}")
    click.echo(
        f"{report.translated} translated now, {report.repeated} of the same words as another "
        f"question, {report.kept} there before"
    )
    if report.human:
        click.echo(f"{report.human} questions have a translation already, which stays")
    if report.left:
        click.echo(f"{report.left} questions are left")
    for flaw, count in report.flaws.items():
        click.echo(f"{count} translations are {flaw}: marked, and used nowhere", err=True)


def _print_overlaps(overlaps: tuple[Overlap, ...]) -> None:
    by_pair: dict[tuple[str, str], list[Overlap]] = {}
    for overlap in overlaps:
        by_pair.setdefault((overlap.title, overlap.other_title), []).append(overlap)
    for (title, other), group in by_pair.items():
        longest = max(group, key=lambda overlap: overlap.words)
        shared = ["the title"] if longest.same_title else []
        if longest.words:
            shared.append(f"{longest.words} words in a row: {longest.text}")
        click.echo(_printable(f"{title} | {other}"))
        click.echo(
            f"  documents: {_printable(', '.join(overlap.document_id for overlap in group))}"
        )
        click.echo(f"  shared: {_printable('; '.join(shared))}")
    titles = len({title for title, _ in by_pair})
    documents = len({overlap.document_id for overlap in overlaps})
    click.echo(f"{documents} documents with {titles} titles share something")


def _row(entry: CatalogueEntry) -> dict[str, object]:
    return {
        "name": entry.name,
        "kind": entry.kind,
        "languages": list(entry.languages),
        "licence": entry.licence,
        "citation": entry.citation,
        "description": entry.description,
        "bytes": entry.download_size,
        "here": _is_here(entry),
    }


def _is_here(entry: CatalogueEntry) -> bool:
    from clrelkt.corpora.fetch import find_entry

    return not entry.files or find_entry(entry) is not None


def _fetch(entry: CatalogueEntry, source: Path | None) -> Fetched:
    from clrelkt.corpora.fetch import fetch, fetch_from

    if source is not None:
        return fetch_from(entry, source)
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(file: str, done: int, size: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=size)
            bars.update(tasks[file], completed=done, total=size)

        return fetch(entry, progress=show)


def _as_json(path: Path, inspection: Inspection) -> dict[str, object]:
    return {
        "path": str(path),
        "faults": [
            {"file": fault.file, "record": fault.record, "message": fault.message}
            for fault in inspection.faults
        ],
        "questions": dict(inspection.questions),
    }


def _print(inspection: Inspection) -> None:
    for fault in inspection.faults:
        click.echo(_printable(str(fault)))
    if inspection.faults:
        count = len(inspection.faults)
        click.echo(f"{count} {'fault' if count == 1 else 'faults'}", err=True)
        return
    total = sum(inspection.questions.values())
    counts = "  ".join(f"{code} {count}" for code, count in inspection.questions.items())
    click.echo(f"no faults; {total} questions: {counts}")


def _printable(text: str) -> str:
    # A terminal must not be sent the control characters or half surrogates of a bad file.
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
