"""``clrelkt index``: documents become an index, and an index changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from clrelkt.cli.options import gpus_option

if TYPE_CHECKING:
    from clrelkt.search import Index
    from clrelkt.search.sources import Source

__all__ = ["index"]

Command = TypeVar("Command", bound=Callable[..., Any])


class _IndexGroup(click.Group):
    """A group whose first command, ``build``, needs no name: ``clrelkt index muse xquad``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = not args or args[0] in self.commands or args[0] in ctx.help_option_names
        return super().parse_args(ctx, args if named else ["build", *args])

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "ENCODER SOURCE -o INDEX [OPTIONS]")
        formatter.write_usage(ctx.command_path, "add|delete|copy|compact|info INDEX ...")


@click.group(cls=_IndexGroup)
def index() -> None:
    """Make the documents of SOURCE searchable with ENCODER, and change what is in an INDEX.

    clrelkt index build --help shows the options of the first form.
    """


_INDEX = click.argument("folder", metavar="INDEX", type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_DEVICE = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    help="Where the encoder computes. [default: cuda where there is one]",
)
_SOURCE_OPTIONS = (
    click.option(
        "--language",
        metavar="CODE",
        help="Language of documents that do not say. [default: detected]",
    ),
    click.option("--id-field", metavar="NAME", help="Field of a record that is its id."),
    click.option("--text-field", metavar="NAME", help="Field of a record that is its text."),
    click.option("--title-field", metavar="NAME", help="Field of a record that is its title."),
    click.option("--language-field", metavar="NAME", help="Field that is its language."),
    click.option(
        "--skip-faults",
        is_flag=True,
        help="Pass over records and files with faults, and list them at the end.",
    ),
    _DEVICE,
    gpus_option,
)


def _source_options(command: Command) -> Command:
    for option in reversed(_SOURCE_OPTIONS):
        command = option(command)
    return command


@index.command()
@click.argument("encoder")
@click.argument("source")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="INDEX",
    help="Folder of the index.",
)
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    default=192,
    show_default=True,
    help="Tokens of a passage, at most. Passages that SOURCE has already stay whole.",
)
@click.option(
    "--overlap",
    type=click.IntRange(min=0),
    default=32,
    show_default=True,
    help="Tokens of whole sentences that a passage may share with the one before.",
)
@click.option(
    "--precision",
    type=click.Choice(["float16", "int8"]),
    default="float16",
    show_default=True,
    help="What an exact search reads: with int8 half as much, and then the best 100 in float16.",
)
@click.option(
    "--store",
    default="exact",
    show_default=True,
    metavar="STORE",
    help="Where vectors are looked for: exact, hnsw or ivf (faiss), or milvus://HOST:PORT.",
)
@click.option(
    "--sentences/--no-sentences",
    default=True,
    help="Encode sentences too, for highlights; otherwise a search does it. [default: yes]",
)
@click.option(
    "--words/--no-words",
    default=True,
    help="Write what hybrid searches need. [default: yes]",
)
@_source_options
@_JSON
def build(
    encoder: str,
    source: str,
    output: Path,
    budget: int,
    overlap: int,
    precision: Any,
    store: str,
    sentences: bool,
    words: bool,
    device: str | None,
    gpus: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Make an index of the documents of SOURCE.

    ENCODER is muse, muse-8bit or the folder of a saved encoder. SOURCE is a corpus that clrelkt
    data list names, a file (.jsonl .csv .tsv .parquet .json .txt .md .html .pdf) or a folder of
    such files, of BEIR's form or of the paper's tables. A build that was stopped goes on when
    the same command is given again.
    """
    from clrelkt.cli.measuring import load_for_encoding
    from clrelkt.search import Index, IndexSettings

    settings = IndexSettings(budget, overlap, precision, sentences, words, store)
    opened = _open_source(source, options)
    loaded, _ = load_for_encoding(encoder, device, gpus=gpus)
    with Index.build(
        loaded, opened.read(), output, settings=settings, source=opened.name, progress=True
    ) as made:
        _report(made, opened, as_json)


@index.command()
@_INDEX
@click.argument("source")
@click.option("--replace", is_flag=True, help="Put documents in the place of those of their ids.")
@_source_options
@_JSON
def add(
    folder: Path,
    source: str,
    replace: bool,
    device: str | None,
    gpus: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Add the documents of SOURCE to INDEX; searches see all of them at once, at the end."""
    opened = _open_source(source, options)
    with _open(folder, device, gpus) as found:
        write = found.replace if replace else found.add
        write(opened.read(), source=opened.name, progress=True)
        _report(found, opened, as_json)


@index.command()
@_INDEX
@click.argument("ids", nargs=-1)
@click.option(
    "--from",
    "ids_file",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="A file with an id a line; - is standard input.",
)
@_JSON
def delete(folder: Path, ids: tuple[str, ...], ids_file: Any, as_json: bool) -> None:
    """Delete the documents IDS from INDEX, all of them or none."""
    from clrelkt.search.changes import delete_from

    wanted = [*ids, *(line.rstrip("\n") for line in ids_file or () if line.strip())]
    if not wanted:
        raise click.UsageError("no ids: name them, or a file with --from")
    version = delete_from(folder, wanted)
    if as_json:
        click.echo(json.dumps({"deleted": len(set(wanted)), "version": version}))
    else:
        click.echo(f"{folder}: {len(set(wanted)):,} documents deleted, version {version}")


@index.command()
@_INDEX
@click.argument("store")
@_JSON
def copy(folder: Path, store: str, as_json: bool) -> None:
    """Copy the vectors of INDEX to STORE, and search there from then on.

    STORE is exact, hnsw or ivf (faiss), or milvus://HOST:PORT. Texts stay in the folder.
    """
    from clrelkt.search.changes import copy_to_store

    version = copy_to_store(folder, store, progress=True)
    if as_json:
        click.echo(json.dumps({"store": store, "version": version}))
    else:
        click.echo(f"{folder}: searched in {store}, version {version}")


@index.command()
@_INDEX
@_JSON
def compact(folder: Path, as_json: bool) -> None:
    """Join the segments of INDEX and drop what is deleted; searches go on meanwhile."""
    from clrelkt.search.changes import compact_index

    version = compact_index(folder)
    click.echo(json.dumps({"version": version}) if as_json else f"{folder}: version {version}")


@index.command()
@_INDEX
@_JSON
def info(folder: Path, as_json: bool) -> None:
    """Tell what is in INDEX, and how it was made."""
    from clrelkt.search.generations import IndexFolder
    from clrelkt.search.snapshot import Snapshot

    place = IndexFolder(folder)
    snapshot = Snapshot.open(place)
    record = snapshot.info(place)
    snapshot.close()
    if as_json:
        click.echo(json.dumps(record, ensure_ascii=False, indent=1))
        return
    for key, value in record.items():
        shown = value
        if isinstance(value, dict):
            shown = " ".join(f"{name}={item}" for name, item in value.items())
        elif isinstance(value, int):
            shown = f"{value:,}"
        click.echo(f"{key:<10} {shown}")


def _open_source(name: str, options: dict[str, Any]) -> Source:
    from clrelkt.search.sources import Fields, open_source

    fields = {what: options[f"{what}_field"] for what in ("id", "text", "title", "language")}
    return open_source(
        name,
        fields=Fields(**fields),
        language=options["language"],
        skip_faults=options["skip_faults"],
    )


def _open(folder: Path, device: str | None, gpus: int) -> Index:
    from clrelkt.cli.measuring import load_for_encoding
    from clrelkt.search import Index
    from clrelkt.search.generations import IndexFolder

    name = IndexFolder(folder).describe().encoder.name
    encoder, _ = load_for_encoding(name, device, gpus=gpus)
    return Index.open(folder, encoder)


def _report(made: Index, source: Source, as_json: bool) -> None:
    record = made.info()
    faults = [str(fault) for fault in source.left_out]
    if as_json:
        click.echo(json.dumps(record | {"left_out": faults}, ensure_ascii=False, indent=1))
        return
    for fault in faults[:20]:
        click.echo(f"left out: {fault}", err=True)
    if len(faults) > 20:
        click.echo(f"left out: {len(faults) - 20} more", err=True)
    languages = " ".join(f"{code or '?'} {count:,}" for code, count in record["languages"].items())
    click.echo(
        f"{record['folder']}: {record['documents']:,} documents, {record['passages']:,} passages, "
        f"{record['bytes'] / 1e6:,.1f} MB ({languages})"
    )
    click.echo(f'ask it: clrelkt search {record["folder"]} "your question"')
