"""The command line: ``clrelkt COMMAND``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import click

from clrelkt.errors import ClrelktError

__all__ = ["cli", "main"]

_COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "demo": ("clrelkt.cli.demo:demo", "Run the whole method on the bundled corpus."),
        "reproduce": ("clrelkt.cli.reproduce:reproduce", "Carry out an experiment of the paper."),
        "train": ("clrelkt.cli.train:train", "Train by a recipe."),
        "ablate": ("clrelkt.cli.ablate:ablate", "Change a recipe's parts one at a time."),
        "languages": (
            "clrelkt.cli.languages:languages",
            "Teach an encoder languages that it has never seen.",
        ),
        "mine": (
            "clrelkt.cli.mine:mine",
            "Mine negatives with BM25 or an encoder, at any scale.",
        ),
        "evaluate": ("clrelkt.cli.evaluate:evaluate", "Measure an encoder on a corpus."),
        "measure": (
            "clrelkt.cli.measure:measure",
            "Measure an encoder in other ways: translations, mixed-language pools, sentences.",
        ),
        "reader": (
            "clrelkt.cli.reader:reader",
            "Train and evaluate models that point at the words that answer.",
        ),
        "serve": (
            "clrelkt.cli.serve:serve",
            "Serve an index: a page to ask questions on, and an HTTP interface.",
        ),
        "report": ("clrelkt.cli.report:report", "Make a run's page again, and its figures."),
        "index": ("clrelkt.cli.index:index", "Make documents searchable, and change them."),
        "search": ("clrelkt.cli.search:search", "Ask an index a question in any language."),
        "compare": ("clrelkt.cli.compare:compare", "Put runs side by side."),
        "encoder": (
            "clrelkt.cli.encoder:encoder",
            "Bring in an encoder from elsewhere, and show what one is.",
        ),
        "export": ("clrelkt.cli.export:export", "Write an encoder in a form that others open."),
        "convert-muse": (
            "clrelkt.cli.convert_muse:convert_muse",
            "Read Google's original mUSE from TensorFlow.",
        ),
        "push": ("clrelkt.cli.hub:push", "Upload an encoder to a model hub."),
        "pull": ("clrelkt.cli.hub:pull", "Download an encoder from a model hub."),
        "results": ("clrelkt.cli.results:results", "Show records of earlier measurements."),
        "data": ("clrelkt.cli.data:data", "List, get and check corpora."),
        "completion": ("clrelkt.cli.completion:completion", "Print a shell's completion script."),
    }
)


class _LazyGroup(click.Group):
    """A group that imports a command when it is asked for: ``--help`` imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="clrelkt")
def cli() -> None:
    """Find the answer in another language: train, evaluate and compare cross-lingual retrievers."""


def main(arguments: list[str] | None = None) -> Any:
    """Run a command; every known fault ends in one line on standard error and exit status 1."""
    try:
        return cli.main(args=arguments, prog_name="clrelkt")
    except ClrelktError as error:
        _fail(str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}")


def _fail(message: str) -> None:
    click.secho("error: ", fg="red", err=True, nl=False)
    click.echo(message, err=True)
    sys.exit(1)
