"""Encoding as a stream: texts are tokenised, encoded and fetched from the GPU side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import torch

from clrelkt.encoders.protocol import TextKind
from clrelkt.encoders.ragged import RaggedBatch

__all__ = ["Arrivals", "tokenized_ahead"]

_BLOCK_CHARACTERS = 1_000_000
_WAITING = 2


class _Tokenizing(Protocol):
    def tokenize(self, texts: Sequence[str], kind: TextKind = "passage") -> RaggedBatch: ...


def tokenized_ahead(
    encoder: _Tokenizing, texts: Sequence[str], kind: TextKind
) -> Iterator[tuple[int, RaggedBatch]]:
    """Yield texts in blocks: the number of the first one, and their tokens.

    A block is tokenised while the caller works on the one before.
    """
    blocks = list(_blocks(texts))
    if len(blocks) < 2:
        # A thread takes longer to start than a question to tokenise.
        yield from ((block.start, encoder.tokenize(texts, kind)) for block in blocks)
        return
    with ThreadPoolExecutor(1) as pool:
        coming = None
        for block in blocks:
            made = pool.submit(encoder.tokenize, texts[block], kind)
            if coming is not None:
                yield coming[0], coming[1].result()
            coming = block.start, made
        if coming is not None:
            yield coming[0], coming[1].result()


def _blocks(texts: Sequence[str]) -> Iterator[slice]:
    start = characters = 0
    for place, text in enumerate(texts, start=1):
        characters += len(text)
        if characters >= _BLOCK_CHARACTERS:
            yield slice(start, place)
            start, characters = place, 0
    if start < len(texts):
        yield slice(start, len(texts))


class Arrivals:
    """Puts vectors that are still being computed on a GPU into an array once they are there.

    ``vectors`` (texts, dimension) is whole when the block ends.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors
        self._coming: deque[tuple[slice, torch.Tensor, torch.cuda.Event]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while kind is None and self._coming:
            self._take()

    def expect(self, place: slice, found: torch.Tensor) -> None:
        """Have ``found`` (texts, dimension) put into ``vectors[place]``."""
        if found.device.type != "cuda":
            self._vectors[place] = found.float().cpu().numpy()
            return
        arriving = torch.empty(found.shape, dtype=torch.float32, pin_memory=True)
        arriving.copy_(found, non_blocking=True)
        there = torch.cuda.Event()  # type: ignore[no-untyped-call]
        there.record(torch.cuda.current_stream(found.device))
        self._coming.append((place, arriving, there))
        if len(self._coming) > _WAITING:
            self._take()

    def _take(self) -> None:
        place, arriving, there = self._coming.popleft()
        there.synchronize()
        self._vectors[place] = arriving.numpy()
