"""Options that several commands share."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

if TYPE_CHECKING:
    from clrelkt.training import Recipe

__all__ = [
    "arguments_again",
    "changed_recipe",
    "changes_in_words",
    "gpus_option",
    "jobs_option",
    "run_options",
    "split_seed_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])

_OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run. [default: runs/NAME in the current folder]",
)
_DEVICE = click.option(
    "--device", metavar="NAME", help="cpu or cuda. [default: cuda where there is one]"
)
_SAVE_FORM = click.option(
    "--save-form",
    type=click.Choice(["delta", "delta-float16", "whole"]),
    help="How encoders are written: what differs from their base (exact, or in float16 at half "
    "the size), or whole. [default: delta where the encoder has a published base]",
)
_CHECKPOINT_SECONDS = click.option(
    "--checkpoint-seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Write a checkpoint when this much time has passed since the last.",
)

_ENCODER = click.option(
    "--encoder", metavar="NAME|FOLDER", help="Start from this encoder. [default: the recipe's]"
)
_SPLIT_BY = click.option(
    "--split-by",
    type=click.Choice(["question", "document"]),
    help="What stays on one side of the split. [default: as the recipe says]",
)

gpus_option = click.option(
    "--gpus",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    show_default=True,
    help="Share the work out over N GPUs (with --device cpu: N copies on the CPU).",
)
"""For commands that encode many texts."""

jobs_option = click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Runs carried out at the same time, spread over the GPUs. [default: one a GPU]",
)

split_seed_option = click.option(
    "--split-seed", type=int, default=0, show_default=True, help="Seed of the split."
)


def run_options(command: Command) -> Command:
    """Add the options that say from what, where and how a run is carried out."""
    options = (_CHECKPOINT_SECONDS, _SAVE_FORM, _DEVICE, split_seed_option, _SPLIT_BY)
    for option in (*options, _OUTPUT, _ENCODER):
        command = option(command)
    return command


def changed_recipe(
    recipe: Recipe, encoder: str | None, split_by: Literal["question", "document"] | None
) -> Recipe:
    """Return ``recipe`` with what ``--encoder`` and ``--split-by`` put in its place."""
    import dataclasses

    return dataclasses.replace(
        recipe, encoder=encoder or recipe.encoder, split_by=split_by or recipe.split_by
    )


def changes_in_words(encoder: str | None, split_by: str | None) -> str:
    """Return the two options as they are typed, each after a space; "" where none is given."""
    given = {"--encoder": encoder, "--split-by": split_by}
    return "".join(
        f" {option} {shlex.quote(value)}" for option, value in given.items() if value is not None
    )


def arguments_again(context: click.Context) -> list[str]:
    """Return the words that call a command again with the values that it was called with."""
    words = context.command_path.split()[1:]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif value is True:
            words.append(parameter.opts[-1])
        elif value is not None and value is not False:
            words += [parameter.opts[-1], str(value)]
    return words
