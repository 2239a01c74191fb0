"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["run_options", "split_seed_option"]

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
    default="delta",
    show_default=True,
    help="How encoders are written: what differs from their base (exact, or in float16 at half "
    "the size), or whole.",
)
_CHECKPOINT_SECONDS = click.option(
    "--checkpoint-seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Write a checkpoint when this much time has passed since the last.",
)

split_seed_option = click.option(
    "--split-seed", type=int, default=0, show_default=True, help="Seed of the split."
)


def run_options(command: Command) -> Command:
    """Add the options that say where and how a run is carried out."""
    for option in (_CHECKPOINT_SECONDS, _SAVE_FORM, _DEVICE, split_seed_option, _OUTPUT):
        command = option(command)
    return command
