"""A transformer's layers as one function of autograd, on a CPU.

It computes what the layers of BERT, RoBERTa or XLM-R do, as ``fused_layers`` does on a GPU, but
with operations of PyTorch alone: what is gained is that sums are taken within the products that
they are of, that gradients of gains and biases are each one sum, and that large tensors lie in
memory that is kept from step to step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch.autograd.function import once_differentiable

from clrelkt.encoders.products import (
    added_product,
    linear_without_gradients,
    product,
    turned_product,
)
from clrelkt.encoders.transformer.attention_products import (
    MOST_SCORES,
    Attended,
    GroupScores,
    attend,
    attend_backward,
    has_products,
)
from clrelkt.encoders.transformer.kept_memory import Empty, KeptMemory
from clrelkt.encoders.transformer.layer_passes import WayBack, layer_runs, wanted_gradients
from clrelkt.encoders.transformer.layer_rooms import (
    LayerParameters,
    LayerViews,
    layer_parameters,
    room_views,
)
from clrelkt.encoders.transformer.layout import TextLayout
from clrelkt.encoders.transformer.text_groups import TextGroup, text_groups

__all__ = ["CpuLayers"]


class _Weights(NamedTuple):
    """A layer's matrices and biases in the type that it computes in; gains stay as they are."""

    attention: torch.Tensor
    attention_bias: torch.Tensor
    output: torch.Tensor
    output_bias: torch.Tensor
    inner: torch.Tensor
    inner_bias: torch.Tensor
    outer: torch.Tensor
    outer_bias: torch.Tensor


class _Moments(NamedTuple):
    """What a LayerNorm was given, and the means and inverse deviations of its rows."""

    given: torch.Tensor
    means: torch.Tensor
    inverse: torch.Tensor


class _Kept(NamedTuple):
    """What a layer's way back needs of its way there."""

    states: torch.Tensor
    heads: list[Attended]
    attended: torch.Tensor
    first: _Moments
    middle: torch.Tensor
    before: torch.Tensor
    inner: torch.Tensor
    second: _Moments


class _Texts(NamedTuple):
    """Groups of texts, and what is added to their scores."""

    groups: tuple[TextGroup, ...]
    scores: tuple[GroupScores, ...]


class CpuLayers:
    """The layers of a model like BERT, which holds their parameters."""

    def __init__(self, parameters: Sequence[LayerParameters], heads: int, epsilon: float) -> None:
        self._parameters = tuple(parameters)
        self._heads = heads
        self._epsilon = epsilon
        self.memory = KeptMemory()

    @classmethod
    def of(cls, model: Any) -> Self | None:
        """Return the layers of a model of BERT's kind; None where they are of another form."""
        config = model.config
        found = [layer_parameters(layer) for layer in model.encoder.layer]
        fits = config.hidden_act == "gelu"
        return cls(found, config.num_attention_heads, config.layer_norm_eps) if fits else None

    def can_run(self, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether they compute on ``device`` in ``dtype``."""
        return (
            device.type == "cpu"
            and has_products(dtype)
            and all(part.dtype == torch.float32 for own in self._parameters for part in own)
        )

    def look_up(self, rows: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Return rows of a table, shape (rows, width), whose gradient lies in kept memory."""
        found: torch.Tensor = _Rows.apply(rows, table, self.memory.empty)  # type: ignore[no-untyped-call]
        return found

    def __call__(self, states: torch.Tensor, layout: TextLayout) -> torch.Tensor:
        """Return the hidden states behind the last layer, shape (tokens, width), like ``states``.

        There are no second gradients. Parameters must not change between here and the way back.
        """
        flat = [part for own in self._parameters for part in own]
        keep = torch.is_grad_enabled() and any(part.requires_grad for part in (states, *flat))
        groups = tuple(text_groups(layout, MOST_SCORES))
        scores = tuple(GroupScores.of(group, self._heads, states.dtype) for group in groups)
        weights = self._weights(states.dtype)
        for run in layer_runs(len(weights)):
            parameters = [part for own in self._parameters[run] for part in own]
            states = _Layers.apply(  # type: ignore[no-untyped-call]
                self, run, weights[run], _Texts(groups, scores), keep, states, *parameters
            )
        return states

    def forward(
        self,
        ctx: Any,
        run: slice,
        weights: list[_Weights],
        texts: _Texts,
        keep: bool,
        states: torch.Tensor,
        parameters: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Go through a run of layers; with ``keep`` leave with ``ctx`` what the way back needs."""
        kept = []
        for layer, own in zip(self._parameters[run], weights, strict=True):
            states, left = self._through(states, layer, own, texts, keep)
            kept.append(left)
        if keep:
            ctx.layers, ctx.run, ctx.weights, ctx.texts = self, run, weights, texts
            ctx.way = WayBack(kept, parameters)
        return states

    def backward(self, ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Go back through a run of layers; return the gradients of states and parameters."""
        kept = ctx.way.take()
        run = self._parameters[ctx.run]
        size = sum(part.numel() for own in run for part in own)
        gradients = room_views(run, torch.float32, self.memory.empty(size, dtype=torch.float32))
        # It is written to.
        grad = grad.clone()
        for own, weights, to in zip(
            reversed(run), reversed(ctx.weights), reversed(gradients), strict=True
        ):
            grad = self._back(grad, kept.pop(), own, weights, to, ctx.texts)
        found = [part for views in gradients for part in views.parts]
        return grad, *wanted_gradients(found, ctx.needs_input_grad)

    def _weights(self, dtype: torch.dtype) -> list[_Weights]:
        """Return the weights in ``dtype``; copies are made anew."""
        found: list[_Weights] = []
        targets: list[torch.Tensor] = []
        sources: list[torch.Tensor] = []
        for own in self._parameters:
            width = own.query.shape[1]
            attention = self.memory.empty(3 * width, width, dtype=dtype)
            attention_bias = torch.empty(3 * width, dtype=dtype)
            others = [
                own.output,
                own.output_bias,
                own.inner,
                own.inner_bias,
                own.outer,
                own.outer_bias,
            ]
            targets += [*torch.split(attention, width), *torch.split(attention_bias, width)]
            sources += [*own[:3], own.query_bias, own.key_bias, own.value_bias]
            if dtype == torch.float32:
                copies = [part.detach() for part in others]
            else:
                copies = [self.memory.empty(*part.shape, dtype=dtype) for part in others]
                targets += copies
                sources += others
            found.append(_Weights(attention, attention_bias, *copies))
        with torch.no_grad():
            torch._foreach_copy_(targets, sources)
        return found

    def _through(
        self,
        states: torch.Tensor,
        parameters: LayerParameters,
        weights: _Weights,
        texts: _Texts,
        keep: bool,
    ) -> tuple[torch.Tensor, _Kept | None]:
        empty = self.memory.empty
        packed = linear_without_gradients(states, weights.attention, weights.attention_bias, empty)
        attended = empty(*states.shape, dtype=states.dtype)
        heads = []
        for group, scores in zip(*texts, strict=True):
            own = self._by_heads(packed[group.rows], 3)
            to = self._by_heads(attended[group.rows])
            heads.append(attend(own, group, scores, to, empty))
            if not keep:
                heads.clear()
        del packed
        middle, first = self._add_norm(
            states,
            attended,
            weights.output,
            weights.output_bias,
            (parameters.first_gain, parameters.first_bias),
        )
        before = linear_without_gradients(middle, weights.inner, weights.inner_bias, empty)
        inner = empty(*before.shape, dtype=before.dtype) if keep else before
        torch.ops.aten.gelu.out(before, out=inner)
        found, second = self._add_norm(
            middle,
            inner,
            weights.outer,
            weights.outer_bias,
            (parameters.second_gain, parameters.second_bias),
        )
        if not keep:
            return found, None
        kept = _Kept(states, heads, attended, first, middle, before, inner, second)
        return found, kept

    def _add_norm(
        self,
        states: torch.Tensor,
        factor: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        affine: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, _Moments]:
        """Return the LayerNorm of states with a product added to them."""
        total = torch.add(states, bias, out=self.memory.empty(*states.shape, dtype=states.dtype))
        total = added_product(total, factor, weight.T)
        found, *moments = torch.native_layer_norm(total, (total.shape[1],), *affine, self._epsilon)
        return found, _Moments(total, *moments)

    def _back(
        self,
        grad: torch.Tensor,
        kept: _Kept,
        parameters: LayerParameters,
        weights: _Weights,
        to: LayerViews,
        texts: _Texts,
    ) -> torch.Tensor:
        """Return the gradient of the layer's states, and put those of its parameters into ``to``.

        What flows past a half of the layer is the sum that a product is added to.
        """
        empty, own = self.memory.empty, to.parts
        grad = _norm_backward(
            grad,
            kept.second,
            (parameters.second_gain, parameters.second_bias),
            (own.second_gain, own.second_bias, own.outer_bias),
            empty,
        )
        turned_product(grad, kept.inner, own.outer, empty)
        grad_before = product(grad, weights.outer, empty)
        torch.ops.aten.gelu_backward.grad_input(grad_before, kept.before, grad_input=grad_before)
        _column_sums(grad_before, own.inner_bias)
        turned_product(grad_before, kept.middle, own.inner, empty)
        grad = added_product(grad, grad_before, weights.inner)
        del grad_before
        grad = _norm_backward(
            grad,
            kept.first,
            (parameters.first_gain, parameters.first_bias),
            (own.first_gain, own.first_bias, own.output_bias),
            empty,
        )
        turned_product(grad, kept.attended, own.output, empty)
        grad_attended = self._by_heads(product(grad, weights.output, empty))
        width = grad.shape[1]
        grad_packed = empty(len(grad), 3 * width, dtype=grad.dtype)
        for group, scores, heads in zip(*texts, kept.heads, strict=True):
            rows = self._by_heads(grad_packed[group.rows], 3)
            attend_backward(grad_attended[group.rows], heads, group, scores, rows, empty)
        _column_sums(grad_packed, to.attention_bias)
        turned_product(grad_packed, kept.states, to.attention, empty)
        return added_product(grad, grad_packed, weights.attention)

    def _by_heads(self, rows: torch.Tensor, *parts: int) -> torch.Tensor:
        """Return rows as (tokens, parts, heads, width)."""
        return rows.view(len(rows), *parts, self._heads, -1)


def _norm_backward(
    grad: torch.Tensor,
    moments: _Moments,
    affine: tuple[torch.Tensor, torch.Tensor],
    to: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    empty: Empty,
) -> torch.Tensor:
    """Return the gradient of a sum before its LayerNorm.

    ``to`` is given those of the gain, of the bias, and of the bias within the sum. In 16 bits
    PyTorch adds up the first two in 16 bits, where a sum of many rows soon grows no more.
    """
    dtype = grad.dtype
    precise, given = (
        part if dtype == torch.float32 else empty(*part.shape, dtype=torch.float32).copy_(part)
        for part in (grad, moments.given)
    )
    found, gain, bias = torch.ops.aten.native_layer_norm_backward(
        precise, given, (grad.shape[1],), *moments[1:], *affine, (True, True, True)
    )
    to[0].copy_(gain)
    to[1].copy_(bias)
    _column_sums(found, to[2])
    return found if dtype == torch.float32 else empty(*found.shape, dtype=dtype).copy_(found)


def _column_sums(rows: torch.Tensor, to: torch.Tensor) -> None:
    to.copy_(rows.sum(0))


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, table: torch.Tensor, empty: Empty) -> torch.Tensor:
        ctx.rows, ctx.shape, ctx.empty = rows, table.shape, empty
        return table.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor | None, None]:
        if not ctx.needs_input_grad[1]:
            return None, None, None
        # The system would hand out a large table's gradient anew in every step.
        found = ctx.empty(*ctx.shape, dtype=gradient.dtype).zero_()
        return None, found.index_add_(0, ctx.rows, gradient), None


class _Layers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        layers: CpuLayers,
        run: slice,
        weights: list[_Weights],
        texts: _Texts,
        keep: bool,
        states: torch.Tensor,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        return layers.forward(ctx, run, weights, texts, keep, states, parameters)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        with torch.autocast("cpu", enabled=False):
            found = ctx.layers.backward(ctx, gradient)
        return *(None,) * 5, *found
