"""A transformer's layers as one function of autograd, on a GPU in 16 bits.

It computes what the layers of BERT, RoBERTa or XLM-R do: attention, a sum with LayerNorm, the
feed-forward part, a second sum with LayerNorm. Products of matrices are the device's library's;
what lies between them is done by ``kernels``, which reads each number once where one
operation after the other would read it three times. Every sum is taken in a fixed order.

The parameters' copies in 16 bits lie one behind the other in one room, and so do their gradients in
32 bits: with a small batch the time of a step is that of the host, which would have to make and to
hand on hundreds of tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from clrelkt.encoders.ragged import to_device
from clrelkt.encoders.transformer.layer_graphs import Recordings
from clrelkt.encoders.transformer.layer_passes import WayBack, layer_runs, wanted_gradients
from clrelkt.encoders.transformer.layer_rooms import (
    LayerParameters,
    LayerViews,
    layer_parameters,
    room_views,
)
from clrelkt.encoders.transformer.layout import TextLayout
from clrelkt.encoders.transformer.text_blocks import Spans, SpanTable, TextBlocks
from clrelkt.encoders.triton_kernels import has_kernels, on_device

if TYPE_CHECKING:
    from clrelkt.encoders.transformer.kernels import LayerTiles, Moments

__all__ = ["FusedLayers"]

_WIDEST = 2048
_LONGEST = 1024
"""Texts of more tokens are better served by attention made for long ones."""
_HEAD_WIDTHS = (16, 32, 64, 128)
_ALIGNED = 16
_RECORDED_PRODUCTS = 2.0e12
"""Multiplications of a pass that takes an H100 as long as a host takes to start its kernels."""
_RECORDED_SHARE = 0.08
"""How much of a device's memory a pass may keep between the ways there and back."""


class _Kept(NamedTuple):
    """What a layer's way back needs of its way there.

    ``before`` is what the GELU was taken of; its derivative there, where a product ends with it.
    """

    states: torch.Tensor
    packed: torch.Tensor
    attended: torch.Tensor
    levels: torch.Tensor
    first: Moments
    middle: torch.Tensor
    before: torch.Tensor
    inner: torch.Tensor
    second: Moments


class _Room:
    """Room for copies of all parameters in one type on one device; another object has its own."""

    def __init__(self) -> None:
        self.views: list[LayerViews] = []
        self.recordings: Recordings | None = None

    def __deepcopy__(self, memo: object) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()

    def filled(self, parameters: Sequence[LayerParameters], dtype: torch.dtype) -> list[LayerViews]:
        """Return views of the copies, which are made anew."""
        first = parameters[0].query
        if (
            not self.views
            or self.views[0].attention.dtype != dtype
            or self.views[0].attention.device != first.device
        ):
            # Training goes on with what encoding has made.
            with torch.inference_mode(False):
                self.views = room_views(parameters, dtype)
                self.recordings = None
        targets = [part for views in self.views for part in views.parts]
        with torch.no_grad():
            torch._foreach_copy_(targets, [part for own in parameters for part in own])
        return self.views


class FusedLayers:
    """The layers of a model like BERT, which holds their parameters."""

    def __init__(self, parameters: Sequence[LayerParameters], heads: int, epsilon: float) -> None:
        self._parameters = tuple(parameters)
        self._heads = heads
        self._epsilon = epsilon
        self._room = _Room()

    @classmethod
    def of(cls, model: Any) -> Self | None:
        """Return the layers of a model of BERT's kind; None where they are of another form."""
        config = model.config
        heads = config.num_attention_heads
        fits = (
            config.hidden_act == "gelu"
            and config.hidden_size <= _WIDEST
            and config.hidden_size // heads in _HEAD_WIDTHS
            and config.intermediate_size % _ALIGNED == 0
        )
        found = [layer_parameters(layer) for layer in model.encoder.layer]
        return cls(found, heads, config.layer_norm_eps) if fits and found else None

    def can_run(self, layout: TextLayout) -> bool:
        """Whether there are kernels where ``layout`` lies, and its texts are short enough."""
        device = layout.lengths.device
        return (
            device.type == "cuda"
            and layout.longest <= _LONGEST
            and self._parameters[0].query.dtype == torch.float32
            and has_kernels(device)
        )

    def __call__(
        self, states: torch.Tensor, layout: TextLayout, tiles: LayerTiles | None = None
    ) -> torch.Tensor:
        """Return the hidden states behind the last layer, shape (tokens, width), like ``states``.

        There are no second gradients. Parameters must not change between here and the way back, and
        the gradients of a batch of few tokens lie where those of the next one will.
        """
        if tiles is None:
            from clrelkt.encoders.transformer.kernels import LayerTiles

            tiles = LayerTiles.of(states.shape[1] // self._heads)
        flat = [part for own in self._parameters for part in own]
        keep = torch.is_grad_enabled() and any(part.requires_grad for part in (states, *flat))
        views = self._room.filled(self._parameters, states.dtype)
        if keep and states.device.type == "cuda":
            with on_device(states.device):
                played = self._recordings(states.device, views, tiles)(states, layout.host_lengths)
            if played is not None:
                return played
        spans = _spans(layout.host_lengths, tiles, states.device)
        for run in layer_runs(len(views)):
            parameters = [part for own in self._parameters[run] for part in own]
            states = _Layers.apply(  # type: ignore[no-untyped-call]
                self, run, views[run], spans, tiles, keep, states, *parameters
            )
        return states

    def ahead(
        self,
        views: Sequence[LayerViews],
        states: torch.Tensor,
        spans: Spans,
        tiles: LayerTiles,
        *,
        keep: bool,
        to: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, list[_Kept]]:
        """Go through some layers; with ``keep`` return what the way back needs as well.

        The states behind the last one are put into ``to``.
        """
        kept = []
        for layer in views:
            end = to if layer is views[-1] else None
            states, own = self._through(states, layer, spans, tiles, keep, end)
            kept += [] if own is None else [own]
        return states, kept

    def back(
        self,
        views: Sequence[LayerViews],
        gradients: Sequence[LayerViews],
        kept: list[_Kept],
        grad: torch.Tensor,
        spans: Spans,
        tiles: LayerTiles,
        to: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Go back through some layers; return the gradient of the states and use up ``kept``.

        It is put into ``to``.
        """
        for own, own_gradients in zip(reversed(views), reversed(gradients), strict=True):
            end = to if own is views[0] else None
            grad = self._back(grad, kept.pop(), own, own_gradients, spans, tiles, end)
        return grad

    def new_gradients(self, run: slice) -> list[LayerViews]:
        """Return room for the gradients of a run of layers."""
        return room_views(self._parameters[run], torch.float32)

    def _recordings(
        self, device: torch.device, views: list[LayerViews], tiles: LayerTiles
    ) -> Recordings:
        if self._room.recordings is None:
            own, count = self._parameters[0], len(self._parameters)
            products = count * sum(part.numel() for part in own[:6])
            kept = count * 2 * (8 * own.query.shape[1] + 2 * own.inner.shape[0])
            memory = torch.cuda.get_device_properties(device).total_memory
            self._room.recordings = Recordings(
                lambda: [_Run(self, run, views[run], tiles) for run in layer_runs(len(views))],
                device,
                # With more the host is the quicker one, or too much memory stays taken.
                most=int(min(_RECORDED_PRODUCTS / products, _RECORDED_SHARE * memory / kept)),
                token_bytes=kept,
                block=tiles.block,
                whole=tiles.whole,
            )
        return self._room.recordings

    def _through(
        self,
        states: torch.Tensor,
        views: LayerViews,
        spans: Spans,
        tiles: LayerTiles,
        keep: bool,
        to: torch.Tensor | None,
    ) -> tuple[torch.Tensor, _Kept | None]:
        from clrelkt.encoders.transformer import kernels
        from clrelkt.encoders.transformer.product_kernels import gelu_product

        own = views.parts
        packed = functional.linear(states, views.attention, views.attention_bias)
        attended, levels = kernels.attend(packed, spans, self._heads, tiles)
        middle, first = kernels.add_norm(
            states,
            functional.linear(attended, own.output),
            own.output_bias,
            own.first_gain,
            own.first_bias,
            self._epsilon,
            tiles,
            keep=keep,
        )
        before: torch.Tensor | None
        products = tiles.products_for(middle, own.inner.shape[0])
        if products is None:
            before = functional.linear(middle, own.inner, own.inner_bias)
            inner = functional.gelu(before)
        else:
            inner, before = gelu_product(
                middle, own.inner, own.inner_bias, products.forward, keep=keep
            )
        found, second = kernels.add_norm(
            middle,
            functional.linear(inner, own.outer),
            own.outer_bias,
            own.second_gain,
            own.second_bias,
            self._epsilon,
            tiles,
            keep=keep,
            to=to,
        )
        if first is None or second is None or before is None:
            return found, None
        kept = _Kept(states, packed, attended, levels, first, middle, before, inner, second)
        return found, kept

    def _back(
        self,
        grad: torch.Tensor,
        kept: _Kept,
        views: LayerViews,
        gradients: LayerViews,
        spans: Spans,
        tiles: LayerTiles,
        end: torch.Tensor | None,
    ) -> torch.Tensor:
        from clrelkt.encoders.transformer import kernels
        from clrelkt.encoders.transformer.product_kernels import gelu_product_backward

        own, to = views.parts, gradients.parts
        width, wide = kept.states.shape[1], kept.before.shape[1]
        products = tiles.products_for(grad, wide)
        programs = tiles.programs
        if products is not None:
            programs = max(programs, products.blocks(grad.shape[0]))
        sums = kernels.Sums(grad, gradients.sums.shape[0], programs)
        # What flows past a half of the layer is the sum that the product is added to.
        grad = kernels.add_norm_backward(grad, kept.second, own.second_gain, sums, 0, tiles)
        _multiply(grad.T, kept.inner, to.outer)
        after = 3 * width + wide
        if products is None:
            grad_before = kernels.gelu_backward(grad @ own.outer, kept.before, sums, 3 * width)
        else:
            bias = sums.table[:, 3 * width : after]
            grad_before = gelu_product_backward(
                grad, own.outer, kept.before, bias, products.backward
            )
        _multiply(grad_before.T, kept.middle, to.inner)
        grad = grad.addmm_(grad_before, own.inner)
        del grad_before
        grad = kernels.add_norm_backward(grad, kept.first, own.first_gain, sums, after, tiles, end)
        sums.total(gradients.sums)
        _multiply(grad.T, kept.attended, to.output)
        grad_packed = kernels.attend_backward(
            kept.packed,
            kept.attended,
            kept.levels,
            grad @ own.output,
            spans,
            gradients.attention_bias,
            tiles,
        )
        _multiply(grad_packed.T, kept.states, gradients.attention)
        return grad.addmm_(grad_packed, views.attention)


class _Run:
    """A run of layers that is to be recorded; its gradients lie in one place."""

    def __init__(
        self, layers: FusedLayers, run: slice, views: list[LayerViews], tiles: LayerTiles
    ) -> None:
        self._layers = layers
        self._views = views
        self._tiles = tiles
        self._room = layers.new_gradients(run)
        self.parameters = [part for own in layers._parameters[run] for part in own]
        self.gradients = [part for own in self._room for part in own.parts]

    def ahead(self, states: torch.Tensor, spans: Spans, to: torch.Tensor) -> list[_Kept]:
        _, kept = self._layers.ahead(self._views, states, spans, self._tiles, keep=True, to=to)
        return kept

    def back(self, grad: torch.Tensor, kept: list[_Kept], spans: Spans, to: torch.Tensor) -> None:
        self._layers.back(self._views, self._room, kept, grad, spans, self._tiles, to)


class _Layers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        layers: FusedLayers,
        run: slice,
        views: list[LayerViews],
        spans: Spans,
        tiles: LayerTiles,
        keep: bool,
        states: torch.Tensor,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        with on_device(states.device):
            states, kept = layers.ahead(views, states, spans, tiles, keep=keep)
        if keep:
            ctx.layers, ctx.run, ctx.views, ctx.spans, ctx.tiles = layers, run, views, spans, tiles
            ctx.way = WayBack(kept, parameters)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kept = ctx.way.take()
        room = ctx.layers.new_gradients(ctx.run)
        with on_device(gradient.device):
            states = ctx.layers.back(
                ctx.views, room, kept, gradient.contiguous(), ctx.spans, ctx.tiles
            )
        found = [part for own in room for part in own.parts]
        return *(None,) * 6, states, *wanted_gradients(found, ctx.needs_input_grad)


def _spans(lengths: Sequence[int], tiles: LayerTiles, device: torch.device) -> Spans:
    blocks = TextBlocks.of(lengths, tiles.block, tiles.whole)
    table = SpanTable.fitting(blocks)
    return table.spans(to_device(table.made(lengths, blocks), device))


def _multiply(left: torch.Tensor, right: torch.Tensor, to: torch.Tensor) -> None:
    """Put the product of two matrices into ``to``, which may be of a more precise type."""
    if left.dtype == to.dtype:
        torch.mm(left, right, out=to)
    elif left.device.type == "cuda":
        torch.mm(left, right, out_dtype=to.dtype, out=to)
    else:
        to.copy_(left @ right)
