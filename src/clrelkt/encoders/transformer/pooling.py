"""From hidden states of tokens to one vector a text, as sentence-transformers defines it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from clrelkt.encoders.transformer.layout import TextLayout
from clrelkt.errors import SettingsError

__all__ = ["PoolingMode", "check_modes", "pool_states"]

PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""First token, maximum, mean, sum over the root of the length, mean weighted by place, last."""


def check_modes(modes: Sequence[str]) -> tuple[PoolingMode, ...]:
    """Return the modes.

    Raises:
        SettingsError: one is unknown, or there is none.
    """
    known: tuple[PoolingMode, ...] = get_args(PoolingMode)
    place = {str(mode): mode for mode in known}
    if not modes or any(mode not in place for mode in modes):
        raise SettingsError(f"pooling {', '.join(modes)!r}: one of {', '.join(known)} expected")
    return tuple(place[mode] for mode in dict.fromkeys(modes))


def pool_states(
    states: torch.Tensor, layout: TextLayout, modes: Sequence[PoolingMode]
) -> torch.Tensor:
    """Return the pooled states of each text, shape (texts, modes * width), float32.

    ``states`` has shape (tokens, width).
    """
    return torch.cat([_pooled(states, layout, mode).float() for mode in modes], dim=1)


def _pooled(states: torch.Tensor, layout: TextLayout, mode: PoolingMode) -> torch.Tensor:
    lengths = layout.lengths
    if mode == "cls":
        return states[layout.starts]
    if mode == "lasttoken":
        return states[layout.ends]
    if mode == "max":
        return torch.segment_reduce(states.float(), "max", lengths=lengths, axis=0, unsafe=True)
    if mode == "weightedmean":
        weights = (layout.positions + 1).unsqueeze(1)
        total = (lengths * (lengths + 1) / 2).unsqueeze(1)
        return _sum(states.float() * weights, layout) / total
    count = lengths.unsqueeze(1).float()
    return _sum(states.float(), layout) / (count if mode == "mean" else count.sqrt())


def _sum(states: torch.Tensor, layout: TextLayout) -> torch.Tensor:
    return torch.segment_reduce(states, "sum", lengths=layout.lengths, axis=0, unsafe=True)
