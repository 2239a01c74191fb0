"""How a server encodes questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch

from clrelkt.encoders import MuseEncoder
from clrelkt.encoders.muse.serving import ServingMuse
from clrelkt.errors import SettingsError
from clrelkt.search import Index

__all__ = ["EncodeQuestions", "QuestionPrecision", "question_encoder"]

EncodeQuestions = Callable[[Sequence[str]], np.ndarray]
"""Questions to unit vectors, shape (questions, dimension), float32."""

QuestionPrecision = Literal["auto", "float32", "bfloat16"]
"""What most of the products are computed in; auto is bfloat16 where the processor is made for it.

On XQuAD's questions in 12 languages the cosine between the two was .999997 at least, and the best
passage the same for 99.94 %.
"""

_FAST = ("avx512_bf16", "amx_bf16")


def question_encoder(index: Index, precision: QuestionPrecision = "auto") -> EncodeQuestions:
    """Return the quickest way to encode questions for ``index``, for use by one thread.

    Raises:
        SettingsError: ``precision`` is bfloat16, and the index's encoder is not mUSE on a CPU.
    """
    encoder = index.encoder
    if not isinstance(encoder, MuseEncoder) or encoder.device.type != "cpu":
        if precision == "bfloat16":
            raise SettingsError(
                f"the index's encoder is {encoder.name!r}; precision bfloat16 is for mUSE on a CPU"
            )
        return index.encode_questions
    if precision == "auto":
        precision = "bfloat16" if _has_fast_bfloat16() else "float32"
    return ServingMuse(encoder, precision=precision).encode


def _has_fast_bfloat16() -> bool:
    # Not in every version of torch.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in _FAST)
