"""``clrelkt search``: ask an index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.text import Text

    from clrelkt.search import Hit, Index

__all__ = ["search"]

_BATCH = 256


@click.command()
@click.argument("folder", metavar="INDEX", type=click.Path(path_type=Path))
@click.argument("question", required=False)
@click.option("-k", "--k", type=click.IntRange(1, 1000), default=5, show_default=True, help="Hits.")
@click.option(
    "--language",
    "languages",
    multiple=True,
    metavar="CODE",
    help="Only documents in this language. May stand several times.",
)
@click.option(
    "--where",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only documents with this in their metadata. May stand several times.",
)
@click.option(
    "--by",
    type=click.Choice(["passage", "document"]),
    default="passage",
    show_default=True,
    help="Hits are passages, or documents by their best passage.",
)
@click.option(
    "--hybrid/--no-hybrid",
    default=None,
    help="Join in BM25's ranking of the same passages. [default: yes, if the index has words]",
)
@click.option("--balanced", is_flag=True, help="Let the documents' languages take turns.")
@click.option(
    "--questions",
    "questions_file",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Ask every line of a file (.jsonl: every question in it); prints a JSON object a line.",
)
@click.option("--encoder", metavar="FOLDER", help="Where the index's encoder is, if it has moved.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def search(
    folder: Path,
    question: str | None,
    k: int,
    languages: tuple[str, ...],
    where: tuple[str, ...],
    by: Any,
    hybrid: bool | None,
    balanced: bool,
    questions_file: Any,
    encoder: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Find the passages of INDEX that answer QUESTION, asked in any language."""
    if (question is None) == (questions_file is None):
        raise click.UsageError("expected one QUESTION, or a file of them with --questions")
    conditions = _conditions(where)
    from clrelkt.search import Index

    options: dict[str, Any] = {
        "languages": languages or None,
        "where": conditions,
        "by": by,
        "hybrid": hybrid,
        "balanced": balanced,
    }
    with Index.open(folder, encoder, device=device) as index:
        if question is None:
            _ask_all(index, questions_file, k, options)
            return
        hits = index.search(question, k, **options)
        if as_json:
            record = {"question": question, "version": index.version}
            found = {"hits": [hit.to_json() for hit in hits]}
            click.echo(json.dumps(record | found, ensure_ascii=False, indent=1))
        else:
            _print(hits)


def _conditions(where: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
    """Return the values a key may have: as text, and as the number or truth that it spells."""
    found: dict[str, tuple[Any, ...]] = {}
    for condition in where:
        key, equals, value = condition.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{condition!r}: KEY=VALUE expected", param_hint="--where")
        values: list[Any] = [value]
        try:
            spelt = json.loads(value)
        except json.JSONDecodeError:
            spelt = None
        if isinstance(spelt, int | float):
            values.append(spelt)
        found[key] = (*found.get(key, ()), *values)
    return found


def _ask_all(index: Index, file: Any, k: int, options: dict[str, Any]) -> None:
    batch: list[tuple[Any, str]] = []
    for item in _questions(file):
        batch.append(item)
        if len(batch) == _BATCH:
            _answer(index, batch, k, options)
            batch = []
    if batch:
        _answer(index, batch, k, options)


def _answer(index: Index, batch: list[tuple[Any, str]], k: int, options: dict[str, Any]) -> None:
    found = index.search_batch([text for _, text in batch], k, **options)
    for (id_, text), hits in zip(batch, found, strict=True):
        record = {"id": id_, "question": text, "hits": [hit.to_json() for hit in hits]}
        click.echo(json.dumps(record, ensure_ascii=False))


def _questions(file: Any) -> Iterator[tuple[Any, str]]:
    """Yield an id and a text for every question of a file."""
    from clrelkt.errors import DataError

    lines = file.name.endswith(".jsonl")
    for number, line in enumerate(file, 1):
        text = line.strip()
        if not text:
            continue
        if not lines:
            yield number, text
            continue
        try:
            record = json.loads(text)
            asked = next(record[key] for key in ("question", "text") if key in record)
        except (json.JSONDecodeError, TypeError, StopIteration) as error:
            raise DataError(
                f'{file.name}: line {number}: expected an object like {{"id": 1, "question": "…"}}'
            ) from error
        if not isinstance(asked, str) or not asked.strip():
            raise DataError(f"{file.name}: line {number}: the question is no text, or is empty")
        yield record.get("id", record.get("_id", number)), asked


def _print(hits: list[Hit]) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    if not hits:
        console.print("nothing was found")
    for hit in hits:
        head = Text(f"{hit.rank}. ", style="bold")
        head.append(hit.title or hit.document_id, style="bold")
        head.append(f"  {hit.score:.3f}  {hit.language}  {hit.passage_id}", style="dim")
        console.print(head)
        console.print(Padding(_marked(hit, console.is_terminal), (0, 0, 1, 3), expand=False))


def _marked(hit: Hit, colour: bool) -> Text:
    """Return the passage with its sentence lit up, or between asterisks where nothing can be."""
    from rich.text import Text

    text = Text()
    place = 0
    for found in hit.highlights:
        text.append(hit.text[place : found.start])
        sentence = hit.text[found.start : found.stop]
        text.append(sentence if colour else f"**{sentence}**", style="bold yellow")
        place = found.stop
    text.append(hit.text[place:])
    return text
