"""What the commands that measure an encoder share: ``--languages``, and loading."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from clrelkt.encoders.protocol import Encoder
    from clrelkt.mining.texts import Encode

__all__ = ["WithLanguages", "languages_option", "load_for_encoding"]

_CODES = re.compile(r"[a-z]{2}(,[a-z]{2})*,?")


class WithLanguages(click.Command):
    """A command whose ``--languages`` takes several codes: ``de ru``, ``de,ru`` or twice."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse ``args`` with the option's name before each code."""
        return super().parse_args(ctx, _repeat_option(args, "--languages"))


def _repeat_option(args: Sequence[str], option: str) -> list[str]:
    """Put ``option`` before each further language code that follows its first value."""
    repeated: list[str] = []
    place = 0
    while place < len(args):
        repeated.append(args[place])
        place += 1
        if repeated[-1] != option or place == len(args):
            continue
        repeated.append(args[place])
        place += 1
        while place < len(args) and _CODES.fullmatch(args[place]):
            repeated += [option, args[place]]
            place += 1
    return repeated


def _split_codes(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...] | None:
    codes = [code for value in values for code in re.split(r"[,\s]+", value) if code]
    if values and not codes:
        raise click.BadParameter("at least one language code expected, for example de,ru")
    return tuple(dict.fromkeys(codes)) or None


languages_option = click.option(
    "--languages",
    multiple=True,
    callback=_split_codes,
    metavar="CODES",
    help="Only these question languages: de,ru or de ru. [default: all]",
)
"""For commands of the class ``WithLanguages``."""


def load_for_encoding(
    name: str, device: str | None, batch_tokens: int | None = None
) -> tuple[Encoder, Encode]:
    """Load an encoder onto its device, with the function that encodes and shows progress.

    Raises:
        SettingsError: ``device`` is cuda and there is none.
        UnknownNameError: there is no such encoder.
    """
    import torch

    from clrelkt.encoders import load_encoder
    from clrelkt.errors import SettingsError
    from clrelkt.evaluation.encoding import within_budget

    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--device cuda: torch finds no CUDA device here; use --device cpu")
    encoder = load_encoder(name).to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if batch_tokens is None:
        return encoder, partial(encoder.encode, progress=True)
    return encoder, within_budget(encoder, batch_tokens)
