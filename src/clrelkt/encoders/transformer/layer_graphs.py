"""Layers recorded as graphs of CUDA: a small batch's kernels are sooner done than started.

With 16 pairs a GPU works on a step for 6 ms, and Python takes 30 to start its kernels. A recording
is made for a number of tokens and played again with one call for a run of layers. Batches are
filled up to such a number with tokens that are texts of their own: nothing looks at them, and no
gradient comes from them. Inputs, outputs and gradients lie where the recording found them.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.autograd.function import once_differentiable

from clrelkt.encoders.ragged import to_device
from clrelkt.encoders.transformer.layer_passes import WayBack, wanted_gradients
from clrelkt.encoders.transformer.text_blocks import Spans, SpanTable, TextBlocks

__all__ = ["LayerRun", "Recordings", "rounded"]

_TOKEN_SIZES = 16
"""To an octave: a batch is filled up by 3 percent on average."""
_BLOCK_SIZES = 4
_LEAST = 64
_MOST_RECORDINGS = 64


class LayerRun(Protocol):
    """A run of layers, whose gradients always lie in the same place."""

    @property
    def parameters(self) -> Sequence[torch.Tensor]:
        """All parameters of the run."""

    @property
    def gradients(self) -> Sequence[torch.Tensor]:
        """Where ``back`` puts their gradients."""

    def ahead(self, states: torch.Tensor, spans: Spans, to: torch.Tensor) -> Any:
        """Put the states behind the run into ``to`` (tokens, width); return what ``back`` needs."""

    def back(self, grad: torch.Tensor, kept: Any, spans: Spans, to: torch.Tensor) -> None:
        """Put the gradient of the states before the run into ``to``, and fill in ``gradients``."""


class _Flight:
    """A pass that has gone ahead, and has yet to come back."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens


class _Edges:
    """States before and behind each run, and their gradients; each has room for ``most`` tokens."""

    def __init__(self, like: torch.Tensor, runs: int, most: int) -> None:
        rooms = like.new_zeros((2, runs + 1, most, like.shape[1]), requires_grad=False)
        self.ahead, self.back = rooms.unbind(0)

    def fill(self, room: torch.Tensor, rows: torch.Tensor, size: SpanTable) -> None:
        """Put rows where a recording of ``size`` looks for them, zeros behind them."""
        room[: len(rows)].copy_(rows)
        room[len(rows) : size.tokens].zero_()


class _Recording:
    """The way through all runs and back, for one size of batch."""

    def __init__(self, size: SpanTable, device: torch.device) -> None:
        self.size = size
        self._row = torch.zeros(size.length, dtype=torch.int32, device=device)
        self.spans = size.spans(self._row)
        self.ahead: list[torch.cuda.CUDAGraph] = []
        self.back: list[torch.cuda.CUDAGraph] = []

    def take(self, row: torch.Tensor) -> None:
        """Set the spans to those of a batch."""
        self._row.copy_(to_device(row, self._row.device))


class Recordings:
    """Recordings of the same runs of layers for various sizes, none above ``most`` tokens.

    They share memory, so that only one batch can be between the ways there and back. Where there is
    too little of it nothing is recorded: a pass keeps ``token_bytes`` a token. ``make_runs`` is
    called before the first recording.
    """

    def __init__(
        self,
        make_runs: Callable[[], Sequence[LayerRun]],
        device: torch.device,
        *,
        most: int,
        token_bytes: int,
        block: int,
        whole: int,
    ) -> None:
        self._make_runs = make_runs
        self._device = device
        self._most = most
        self._token_bytes = token_bytes
        self._block = block
        self._whole = whole
        self._runs: tuple[LayerRun, ...] = ()
        self._edges: _Edges | None = None
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._made: OrderedDict[SpanTable, _Recording] = OrderedDict()
        self._flight: weakref.ref[_Flight] | None = None

    def __len__(self) -> int:
        return len(self._made)

    def __call__(self, states: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor | None:
        """Return the states behind the last run; None where there is no recording to play.

        ``states`` (tokens, width) are of texts of the given lengths.
        """
        tokens = states.shape[0]
        whole = rounded(tokens, _TOKEN_SIZES, _LEAST)
        if whole > self._most or self._in_flight() or torch.cuda.is_current_stream_capturing():
            return None
        filled = [*lengths, *[1] * (whole - tokens)]
        blocks = TextBlocks.of(filled, self._block, self._whole)
        # Wholes or parts are never more than blocks: sizes that differ in them alone would be many.
        most = rounded(len(blocks.firsts) - 1, _BLOCK_SIZES)
        size = SpanTable(whole, most, most * bool(blocks.wholes), most * bool(blocks.parts))
        recording = self._recording(size, size.made(filled, blocks), states)
        if recording is None:
            return None
        flight = _Flight(tokens)
        self._flight = weakref.ref(flight)
        for number, run in enumerate(self._runs):
            states = _Played.apply(  # type: ignore[no-untyped-call]
                self, recording, number, flight, states, *run.parameters
            )
        return states

    def play(
        self, recording: _Recording, number: int, flight: _Flight, states: torch.Tensor
    ) -> torch.Tensor:
        """Go through a run; ``states`` lie where they are looked for, but for the first."""
        assert self._edges is not None
        if number == 0:
            self._edges.fill(self._edges.ahead[0], states, recording.size)
        recording.ahead[number].replay()
        last = number + 1 == len(self._runs)
        rows = flight.tokens if last else recording.size.tokens
        return self._edges.ahead[number + 1, :rows].detach()

    def play_back(
        self, recording: _Recording, number: int, flight: _Flight, grad: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Go back through a run; return the gradients of states and parameters."""
        assert self._edges is not None
        room = self._edges.back[number + 1]
        if grad.data_ptr() != room.data_ptr():
            self._edges.fill(room, grad, recording.size)
        run = self._runs[number]
        _move_out(run)
        recording.back[number].replay()
        rows = recording.size.tokens if number else flight.tokens
        if not number:
            self._flight = None
        found = [part.detach() for part in run.gradients]
        return self._edges.back[number, :rows].detach(), found

    def _in_flight(self) -> bool:
        return self._flight is not None and self._flight() is not None

    def _recording(
        self, size: SpanTable, row: torch.Tensor, like: torch.Tensor
    ) -> _Recording | None:
        """Return the recording of a size with the spans of a batch, of states like ``like``."""
        found = self._made.get(size)
        if found is not None:
            self._made.move_to_end(size)
            found.take(row)
            return found
        if not self._has_memory(size.tokens):
            return None
        if self._edges is None:
            self._runs = tuple(self._make_runs())
            self._edges = _Edges(like, len(self._runs), self._most)
        found = _Recording(size, self._device)
        found.take(row)
        with torch.no_grad():
            self._record(found)
        self._made[size] = found
        while len(self._made) > _MOST_RECORDINGS:
            self._made.popitem(last=False)
        return found

    def _has_memory(self, tokens: int) -> bool:
        # Once for the pass before, of which the cache remains, once for the recording.
        needed = 2 * tokens * self._token_bytes
        if torch.cuda.mem_get_info(self._device)[0] < needed:
            torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self._device)[0] >= needed

    def _record(self, recording: _Recording) -> None:
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            # What libraries make when first called cannot be made within a recording.
            self._walk(recording, record=False)
            self._walk(recording, record=True)
        here.wait_stream(self._stream)

    def _walk(self, recording: _Recording, *, record: bool) -> None:
        tokens, edges = recording.size.tokens, self._edges
        assert edges is not None
        ahead, back = (rooms[:, :tokens].unbind(0) for rooms in (edges.ahead, edges.back))
        kept = []
        for number, run in enumerate(self._runs):
            with self._recorded(recording.ahead, record=record):
                kept.append(run.ahead(ahead[number], recording.spans, ahead[number + 1]))
        for number in reversed(range(len(self._runs))):
            with self._recorded(recording.back, record=record):
                self._runs[number].back(back[number + 1], kept.pop(), recording.spans, back[number])
        if record:
            recording.back.reverse()

    @contextlib.contextmanager
    def _recorded(self, to: list[torch.cuda.CUDAGraph], *, record: bool) -> Iterator[None]:
        if not record:
            yield
            return
        graph = torch.cuda.CUDAGraph()
        # Another thread may ask for pinned memory while this one records.
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            yield
        finally:
            graph.capture_end()
        to.append(graph)


class _Played(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        recordings: Recordings,
        recording: _Recording,
        number: int,
        flight: _Flight,
        states: torch.Tensor,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        ctx.way = WayBack((recordings, recording, number, flight), parameters)
        return recordings.play(recording, number, flight, states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        recordings, recording, number, flight = ctx.way.take()
        states, found = recordings.play_back(recording, number, flight, gradient)
        return *(None,) * 4, states, *wanted_gradients(found, ctx.needs_input_grad)


def rounded(number: int, sizes: int, least: int = 1) -> int:
    """Return the next of so many sizes an octave, a power of 2; all are multiples of ``least``."""
    step = max(least, 1 << max(0, number.bit_length() - sizes.bit_length()))
    return -(-number // step) * step


def _move_out(run: LayerRun) -> None:
    """Copy what parameters have as gradients where a recording is about to write new ones."""
    room = run.gradients[0].untyped_storage().data_ptr()
    for parameter in run.parameters:
        own = parameter.grad
        if own is not None and own.untyped_storage().data_ptr() == room:
            parameter.grad = own.clone()
