"""Encoding on several devices at once."""

from __future__ import annotations

import copy
import itertools
import math
import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

from clrelkt.encoders.protocol import Encoder, TextKind, TrainableEncoder
from clrelkt.encoders.ragged import RaggedBatch
from clrelkt.encoders.triton_kernels import on_device
from clrelkt.errors import SettingsError
from clrelkt.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MultiDeviceEncoder", "each_device", "every_gpu"]

_PIECE_CHARACTERS = 1_000_000
_GPU_PIECE_CHARACTERS = 32_000_000
"""The most of a piece: about as much as takes a few seconds."""

_LEAST_CHARACTERS = 20_000
"""Fewer are not worth a thread."""


def every_gpu() -> list[torch.device]:
    """Return the GPUs that torch finds here."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.device("cuda", number) for number in range(count)]


def each_device(encoder: Encoder) -> tuple[Encoder, ...]:
    """Return an encoder for each device that ``encoder`` computes on, to be used side by side."""
    return encoder.copies if isinstance(encoder, MultiDeviceEncoder) else (encoder,)


class _Copy:
    """An encoder on a device of its own (Encoder), for a thread of its own."""

    def __init__(self, encoder: TrainableEncoder, device: torch.device | str) -> None:
        # A tokenizer is for several threads, and knows the words that the others have met.
        shared = getattr(encoder, "tokenizer", None)
        memo = {} if shared is None else {id(shared): shared}
        self._encoder = copy.deepcopy(encoder, memo).to(device)
        self.device = self._encoder.device
        self.name = encoder.name
        self.weights = encoder.weights
        self.dimension = encoder.dimension
        self.languages = encoder.languages

    def encode(
        self, texts: Sequence[str], kind: TextKind = "passage", *, progress: bool = False
    ) -> np.ndarray:
        with on_device(self.device):
            return self._encoder.encode(texts, kind, progress=progress)


class MultiDeviceEncoder:
    """An encoder (TokenizingEncoder) with a copy on each of several devices, which share its work.

    Texts go out in pieces, each to the device that is free. Vectors are those of the encoder
    itself, but for rounding where a piece ends.
    """

    def __init__(self, encoder: TrainableEncoder, devices: Sequence[torch.device | str]) -> None:
        """Copy ``encoder`` to ``devices``; one that is named twice gets two copies.

        Raises:
            SettingsError: no device is named.
        """
        if not devices:
            raise SettingsError("no device to encode on: name at least one, such as cuda:0 or cpu")
        self._encoder = encoder
        self._copies = tuple(_Copy(encoder, device) for device in devices)
        self.name = encoder.name
        self.weights = encoder.weights
        self.dimension = encoder.dimension
        self.languages = encoder.languages

    @property
    def copies(self) -> tuple[Encoder, ...]:
        """The encoder on each of the devices, for work that is shared out in another way."""
        return self._copies

    def tokenize(self, texts: Sequence[str], kind: TextKind = "passage") -> RaggedBatch:
        """Turn texts into token ids (on the CPU), one run of ids a text."""
        return self._encoder.tokenize(texts, kind)

    def encode(
        self, texts: Sequence[str], kind: TextKind = "passage", *, progress: bool = False
    ) -> np.ndarray:
        """Return unit vectors, shape (texts, dimension), float32, without gradients."""
        kind_of_device = self._copies[0].device.type
        most = _GPU_PIECE_CHARACTERS if kind_of_device == "cuda" else _PIECE_CHARACTERS
        cut = _pieces(texts, len(self._copies), most)
        if len(cut) < 2:
            return self._copies[0].encode(texts, kind, progress=progress)
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        pieces: queue.SimpleQueue[slice] = queue.SimpleQueue()
        for piece in cut:
            pieces.put(piece)

        low = torch.is_autocast_enabled(kind_of_device)
        dtype = torch.get_autocast_dtype(kind_of_device)

        def work(own: _Copy, advance: Callable[[int], None]) -> None:
            # A thread of its own knows nothing of the caller's autocast.
            with torch.autocast(own.device.type, dtype, enabled=low):
                while True:
                    try:
                        piece = pieces.get_nowait()
                    except queue.Empty:
                        return
                    vectors[piece] = own.encode(texts[piece], kind)
                    advance(piece.stop - piece.start)

        bar = progress_bar("encoding", total=len(texts), unit="texts", shown=progress)
        with bar as advance, ThreadPoolExecutor(len(self._copies)) as pool:
            for done in [pool.submit(work, own, advance) for own in self._copies]:
                done.result()
        return vectors


def _pieces(texts: Sequence[str], workers: int, most: int) -> list[slice]:
    """Cut texts into runs of about the same number of characters, as many for each worker.

    A device stands still where a run begins, until the first tokens are there: there are as few as
    ``most`` characters allow.
    """
    sizes = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)) + 1
    ends = sizes.cumsum()
    total = int(ends[-1]) if len(texts) else 0
    workers = max(1, min(workers, total // _LEAST_CHARACTERS))
    count = workers * max(1, math.ceil(total / workers / most))
    cuts = np.searchsorted(ends, np.arange(1, count) * total / count)
    places = np.unique([0, *cuts.tolist(), len(texts)]).tolist()
    return [slice(a, b) for a, b in itertools.pairwise(places)]
