"""Products by oneDNN against those of double precision, and where they are used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from clrelkt.encoders import products
from clrelkt.encoders.muse import forward as muse_forward
from clrelkt.encoders.muse.forward import BRANCH_WIDTH, BRANCHES


@pytest.fixture
def amd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor for which oneDNN is faster, whatever this one is: both give the same."""
    monkeypatch.setattr(products, "_has_wide_amd", lambda: True)


@pytest.mark.usefixtures("amd")
@pytest.mark.parametrize(("rows", "inner", "outer"), [(64, 48, 80), (130, 80, 48), (64, 1, 3)])
@pytest.mark.parametrize("biased", [True, False])
def test_a_linear_layer_and_its_gradients(rows: int, inner: int, outer: int, biased: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(rows, inner), (outer, inner), *([(outer,)] if biased else [])]
    given_ = [torch.randn(shape, generator=generator) for shape in shapes]
    own = [part.clone().requires_grad_() for part in given_]
    exact = [part.double().requires_grad_() for part in given_]
    found, expected = products.linear(*own), functional.linear(*exact)
    assert found.grad_fn is not None
    assert "_Linear" in type(found.grad_fn).__name__
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    pull = torch.randn(rows, outer, generator=generator)
    (found * pull).sum().backward()
    (expected * pull).sum().backward()
    for one, other in zip(own, exact, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert one.grad.is_contiguous()
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("amd")
def test_where_it_is_used() -> None:
    many, few, weight = torch.ones(64, 4), torch.ones(63, 4), torch.ones(4, 4)
    assert products.onednn_is_faster(many, weight)
    assert not products.onednn_is_faster(few, weight)
    assert not products.onednn_is_faster(many.double(), weight.double())
    assert not products.onednn_is_faster(many, weight.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert not products.onednn_is_faster(many, weight)
        assert products.linear(many, weight).dtype == torch.bfloat16


@pytest.mark.parametrize("text", ["vendor_id : GenuineIntel", None])
def test_other_processors_stay_with_pytorchs_own(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(products, "_CPUS", tmp_path / "cpuinfo")
    products._has_wide_amd.cache_clear()
    try:
        assert not products.onednn_is_faster(torch.ones(64, 4), torch.ones(4, 4))
    finally:
        products._has_wide_amd.cache_clear()


@given(st.integers(1, 200))
def test_second_convolutions_are_the_same_by_both(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    wide = len(BRANCHES) * BRANCH_WIDTH
    kernels = [drawn(size, BRANCH_WIDTH, BRANCH_WIDTH) / 16 for size, _ in BRANCHES]
    hidden, gradient, bias = drawn(rows, wide), drawn(rows, wide), drawn(wide)
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for fast in (True, False):
            patch.setattr(muse_forward, "onednn_is_faster", lambda *_, fast=fast: fast)
            output = muse_forward._second_convolutions(hidden, kernels, bias)
            grad_hidden = hidden.clone()
            grad_kernels: list[torch.Tensor | None] = [
                torch.ones_like(kernels[0]),
                None,
                torch.zeros_like(kernels[2]),
            ]
            muse_forward._second_convolutions_backward(
                grad_hidden, gradient, hidden, kernels, grad_kernels
            )
            found.append((output, grad_hidden, grad_kernels[0], grad_kernels[2]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-4)
