"""``clrelkt serve``: an index behind HTTP, and a page to ask on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from clrelkt.reader import Reader

__all__ = ["serve"]


@click.command()
@click.argument("index", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen at; 0 is a free one.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A name that the server goes by, besides this machine's own. May stand several times. "
    "[default: any, where --host is no address of this machine alone]",
)
@click.option("--encoder", metavar="NAME|FOLDER", help="[default: the one that the index names]")
@click.option(
    "--reader",
    "reader_name",
    metavar="MODEL",
    help="Look for answers in the hits with this reader (clrelkt reader train).",
)
@click.option(
    "--read-hits",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many hits of a search the reader reads.",
)
@click.option(
    "--no-answer-threshold",
    type=float,
    default=0.0,
    show_default=True,
    help="A hit has no answer where 'none' scores this much more than the best span.",
)
@click.option(
    "--device", default="cpu", show_default=True, help="Where encoder and reader compute."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads that compute. [default: all]")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="What mUSE multiplies in; auto is bfloat16 where the processor is made for it.",
)
@click.option(
    "--max-batch",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Questions that are searched at once.",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Requests that may wait; more get status 503.",
)
@click.option(
    "--max-per-client",
    type=click.IntRange(min=0),
    default=128,
    show_default=True,
    help="Requests of one address under way; more get status 429. 0 is no limit.",
)
@click.option(
    "--remember",
    type=click.IntRange(min=0),
    default=10_000,
    show_default=True,
    help="Questions whose vectors are kept.",
)
@click.option(
    "--refresh-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="How often a newer version of the index is looked for.",
)
def serve(
    index: Path,
    host: str,
    port: int,
    hosts: tuple[str, ...],
    encoder: str | None,
    reader_name: str | None,
    read_hits: int,
    no_answer_threshold: float,
    device: str,
    threads: int | None,
    precision: Any,
    max_batch: int,
    max_waiting: int,
    max_per_client: int,
    remember: int,
    refresh_seconds: float,
) -> None:
    """Serve INDEX: a page to ask questions on, and an HTTP interface (/openapi.json).

    It listens to this machine alone unless --host says otherwise. A newer version of the index
    (clrelkt index) is taken up while the server runs. SIGTERM or Ctrl-C ends it, after what is
    under way.
    """
    # Threads that wait shall sleep: the event loop needs the core. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from clrelkt.errors import MissingExtraError
    from clrelkt.search import Index
    from clrelkt.server import Address, ServerSettings
    from clrelkt.server import serve as run_server

    try:
        from clrelkt.server.questions import question_encoder
        from clrelkt.server.service import SearchService
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "serve") from error
    if threads is not None:
        torch.set_num_threads(threads)
    address = Address(host, port)
    names = address.hosts + hosts if address.is_loopback else hosts
    settings = ServerSettings(
        max_batch=max_batch,
        max_waiting=max_waiting,
        max_per_client=max_per_client,
        remembered=remember,
        read_hits=read_hits,
        refresh_seconds=refresh_seconds,
        hosts=tuple(name.lower() for name in names),
    )
    opened = Index.open(index, encoder, device=device)
    answering = _reader(reader_name, no_answer_threshold, device)
    encode = question_encoder(opened, precision)
    run_server(SearchService(opened, settings, answering, encode), address)


def _reader(name: str | None, threshold: float, device: str) -> Reader | None:
    if name is None:
        return None
    from clrelkt.reader import ReaderSettings, load_reader

    return load_reader(name, ReaderSettings(no_answer_threshold=threshold), device=device)
