"""FlashAttention 2 for transformers from PyTorch itself, where the package flash-attn is not.

PyTorch has the variable-length kernels, forward and backward (``torch.nn.attention.varlen``);
transformers looks for those of flash-attn alone. :meth:`TorchFlash.registered` answers in two
places of transformers, the same from 5.17 to 5.23: the check whether FlashAttention 2 is at hand
says yes, and ``_lazy_imports``, which would import the package's functions, returns these.
Everything else is transformers' and sentence-transformers' own code, as with the package.

A made module ``flash_attn`` would not do instead: the check asks for the metadata of an installed
distribution, which 5.17 reads once, when it is imported itself, and all other libraries of the
process would take the package for installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from harness import DisagreementError

__all__ = ["IMPLEMENTATION", "TorchFlash"]

IMPLEMENTATION = "flash_attention_2"
"""What a model's ``attn_implementation`` must be."""

Attention = Callable[..., torch.Tensor]


class TorchFlash:
    """The functions that transformers asks flash-attn for, and a count of what they were given.

    ``attention`` is ``torch.nn.attention.varlen.varlen_attn`` or takes the same seven arguments.
    Only texts that come unpadded are computed: functions for padded ones raise.
    """

    def __init__(self, attention: Attention) -> None:
        self._attention = attention
        self.forget()

    def forget(self) -> None:
        """Count anew."""
        self.calls = 0
        self.texts = 0
        self.tokens = 0
        self.dtypes = set[torch.dtype]()

    def report(self, expected: int) -> str:
        """Say what was computed since it was last forgotten; ``expected`` calls at least.

        Raises:
            DisagreementError: there were fewer, so something else computed the attention.
        """
        if self.calls < expected:
            raise DisagreementError(
                f"attention was to be unpadded: {self.calls} calls of its kernel, not {expected}"
            )
        dtypes = " and ".join(sorted(str(own).removeprefix("torch.") for own in self.dtypes))
        return (
            f"unpadded attention in {dtypes}: {self.calls} calls of its kernel, "
            f"{self.tokens / self.texts:.1f} tokens a text, none of them padding"
        )

    @contextmanager
    def registered(self) -> Iterator[TorchFlash]:
        """Let transformers find these functions; models must be loaded and run within.

        Raises:
            AttributeError: this version of transformers looks for them elsewhere.
            KeyError: the same.
        """
        from transformers import modeling_flash_attention_utils

        utils: Any = modeling_flash_attention_utils
        matrix = utils.FLASH_ATTENTION_COMPATIBILITY_MATRIX[2]
        check, imports = matrix["general_availability_check"], utils._lazy_imports
        found = (padded, self.varlen, None, padded, padded)
        matrix["general_availability_check"] = lambda *_, **__: True
        utils._lazy_imports = lambda *_, **__: found
        utils._loaded_implementation = None
        try:
            yield self
        finally:
            matrix["general_availability_check"] = check
            utils._lazy_imports = imports
            utils._loaded_implementation = None

    def varlen(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seqlens_q: torch.Tensor,
        cu_seqlens_k: torch.Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
    ) -> torch.Tensor:
        """Return the attention of texts that lie one behind the other, (tokens, heads, width).

        Raises:
            ValueError: something is asked for that encoders of texts do without.
        """
        usual = query.shape[-1] ** -0.5
        scale = usual if softmax_scale is None else softmax_scale
        if causal or dropout_p or softcap or window_size != (-1, -1):
            raise ValueError("only full attention without dropout is passed on to PyTorch")
        if not math.isclose(scale, usual, rel_tol=1e-6):
            raise ValueError(f"the scale is {scale}: only the usual one, {usual}, is passed on")
        self.calls += 1
        # Shapes alone: to read a length from the device would halt the peer.
        self.texts += len(cu_seqlens_q) - 1
        self.tokens += len(query)
        self.dtypes.add(query.dtype)
        return self._attention(
            query, key, value, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k
        )


def padded(*_: Any, **__: Any) -> Any:
    """Stand for the functions that padded texts go through.

    Raises:
        ValueError: always.
    """
    raise ValueError("texts came padded to the attention that was to be unpadded")
