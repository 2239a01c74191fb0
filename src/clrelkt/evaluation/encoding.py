"""Encoding within a budget of tokens, where memory is short or plentiful."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from clrelkt.encoders.protocol import TextKind, TrainableEncoder
from clrelkt.encoders.ragged import token_budget_slices
from clrelkt.errors import SettingsError
from clrelkt.mining.texts import Encode
from clrelkt.progress import progress_bar

__all__ = ["remembered", "within_budget"]


def within_budget(encoder: TrainableEncoder, tokens: int) -> Encode:
    """Return an ``encode`` that gives ``encoder`` at most ``tokens`` tokens at once.

    A text longer than that goes alone.

    Raises:
        SettingsError: the budget is not above 0.
    """
    if tokens < 1:
        raise SettingsError(f"a batch of {tokens} tokens: at least 1 is needed")

    @torch.inference_mode()
    def encode(texts: Sequence[str], kind: TextKind) -> np.ndarray:
        vectors = np.empty((len(texts), encoder.dimension), dtype=np.float32)
        batch = encoder.tokenize(texts, kind)
        with progress_bar("encoding", total=len(texts), unit="texts") as advance:
            for run in token_budget_slices(batch.lengths.tolist(), tokens):
                chosen = batch.select(torch.arange(run.start, run.stop)).to(encoder.device)
                vectors[run] = encoder(chosen).float().cpu().numpy()
                advance(run.stop - run.start)
        return vectors

    return encode


def remembered(encode: Encode) -> Encode:
    """Return an ``encode`` that keeps what it has made: the same texts are encoded once.

    The same texts are a sequence of the same texts in the same order.
    """
    made: dict[tuple[tuple[str, ...], TextKind], np.ndarray] = {}

    def encode_once(texts: Sequence[str], kind: TextKind) -> np.ndarray:
        key = tuple(texts), kind
        if key not in made:
            made[key] = encode(texts, kind)
        return made[key]

    return encode_once
