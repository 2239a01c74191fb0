"""What the commands that measure an encoder share: ``--languages``, and loading."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import torch

    from clrelkt.encoders.protocol import Encoder
    from clrelkt.mining.texts import Encode

__all__ = ["WithLanguages", "languages_option", "load_for_encoding", "load_onto"]

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
    name: str, device: str | None, batch_tokens: int | None = None, gpus: int = 1
) -> tuple[Encoder, Encode]:
    """Load an encoder onto its devices, with the function that encodes and shows progress.

    Raises:
        SettingsError: ``device`` is cuda and there is none, or there are fewer than ``gpus``;
            ``batch_tokens`` with several devices, of which each has its own budget.
        UnknownNameError: there is no such encoder.
    """
    from clrelkt.encoders import load_encoder
    from clrelkt.errors import SettingsError
    from clrelkt.evaluation.encoding import within_budget
    from clrelkt.training.device import choose_devices

    devices = choose_devices(device, gpus)
    if batch_tokens is None:
        encoder = load_onto(name, devices)
        return encoder, partial(encoder.encode, progress=True)
    if len(devices) > 1:
        raise SettingsError(
            "--batch-tokens goes with one device: leave out --batch-tokens or --gpus"
        )
    alone = load_encoder(name).to(devices[0])
    return alone, within_budget(alone, batch_tokens)


def load_onto(name: str, devices: Sequence[torch.device]) -> Encoder:
    """Load an encoder onto a device, or a copy onto each of several.

    Raises:
        UnknownNameError: there is no such encoder.
    """
    from clrelkt.encoders import load_encoder
    from clrelkt.encoders.devices import MultiDeviceEncoder

    loaded = load_encoder(name)
    return loaded.to(devices[0]) if len(devices) == 1 else MultiDeviceEncoder(loaded, devices)
