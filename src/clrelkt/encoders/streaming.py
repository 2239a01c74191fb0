"""Encoding as a stream: texts are tokenised, encoded and fetched from the GPU side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import torch

from clrelkt.cores import cores
from clrelkt.encoders.ragged import RaggedBatch

__all__ = ["Arrivals", "tokenized_ahead"]

_FIRST_SHARE = 8
_WAITING = 2
_TOKENIZING = 2
_AHEAD = 3


class _Tokenize(Protocol):
    def __call__(self, texts: Sequence[str], /, *, threads: int | None = None) -> RaggedBatch: ...


def tokenized_ahead(
    tokenize: _Tokenize, texts: Sequence[str], block_characters: int, *, rising: bool = False
) -> Iterator[tuple[int, RaggedBatch]]:
    """Yield texts in blocks: the number of the first one, and their tokens.

    Blocks, of about ``block_characters``, are tokenised while the caller works on those before, two
    at a time, each on half of the cores: they are busy with one while the other waits for Python or
    for its last text. ``rising`` ones begin small and double: a GPU stands still until the first
    one's tokens are there.
    """
    first = max(1, block_characters // _FIRST_SHARE) if rising else block_characters
    blocks = list(_blocks(texts, first, block_characters))
    if len(blocks) < 2:
        # A thread takes longer to start than a question to tokenise.
        yield from ((block.start, tokenize(texts)) for block in blocks)
        return
    threads = max(1, cores() // _TOKENIZING)
    with ThreadPoolExecutor(_TOKENIZING) as pool:
        coming: deque[tuple[int, Future[RaggedBatch]]] = deque()
        for block in blocks:
            coming.append((block.start, pool.submit(tokenize, texts[block], threads=threads)))
            if len(coming) > _AHEAD:
                yield _first(coming)
        while coming:
            yield _first(coming)


def _first(coming: deque[tuple[int, Future[RaggedBatch]]]) -> tuple[int, RaggedBatch]:
    start, made = coming.popleft()
    return start, made.result()


def _blocks(texts: Sequence[str], first: int, most: int) -> Iterator[slice]:
    """Cut texts into blocks of at least ``first`` characters, which double until ``most``."""
    start = characters = 0
    for place, text in enumerate(texts, start=1):
        characters += len(text)
        if characters >= first:
            yield slice(start, place)
            start, characters, first = place, 0, min(2 * first, most)
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
