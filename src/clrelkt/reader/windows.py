"""A question and a context as overlapping windows of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clrelkt.errors import SettingsError

__all__ = ["Window", "WindowSettings", "cut_windows"]


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """How a context that is too long is cut.

    A window has at most ``max_length`` tokens, the question's among them; neighbours share
    ``stride`` tokens of the context. A question keeps its first ``max_question_tokens``. The
    defaults are the paper's reader's (384 and 128).
    """

    max_length: int = 384
    stride: int = 128
    max_question_tokens: int = 64

    def __post_init__(self) -> None:
        if min(self.max_length, self.max_question_tokens) < 1 or self.stride < 0:
            raise SettingsError(
                f"max_length {self.max_length}, max_question_tokens {self.max_question_tokens}, "
                f"stride {self.stride}: at least 1, 1 and 0"
            )
        # Eight places: the special tokens, and at least one that is new in each window.
        if self.max_question_tokens + self.stride + 8 > self.max_length:
            raise SettingsError(
                f"max_length {self.max_length} leaves no room for a question of "
                f"{self.max_question_tokens} tokens and {self.stride} that windows share; set a "
                "smaller stride or a greater length"
            )


@dataclass(frozen=True)
class Window:
    """Tokens of a question and of a part of its context.

    ``inputs`` are the rows that the model takes (``input_ids`` and the like). ``offsets`` says from
    which character to which each token goes, in the question or in the context; the tokens from
    ``context_tokens[0]`` up to, not with, ``context_tokens[1]`` are the context's. ``null_place``
    is the token that stands for "no answer here".
    """

    pair: int
    inputs: dict[str, list[int]]
    offsets: Sequence[tuple[int, int]]
    context_tokens: tuple[int, int]
    null_place: int

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Return the first and the last token of ``context[start:end]``.

        Both are ``null_place`` where the window does not hold all of it.
        """
        first, last = self.context_tokens
        holding = [
            token
            for token in range(first, last)
            if self.offsets[token][0] < end and self.offsets[token][1] > start
        ]
        whole = (
            holding and self.offsets[holding[0]][0] <= start and self.offsets[holding[-1]][1] >= end
        )
        return (holding[0], holding[-1]) if whole else (self.null_place, self.null_place)


def cut_windows(
    tokenizer: Any, pairs: Sequence[tuple[str, str]], settings: WindowSettings
) -> list[Window]:
    """Return the windows of pairs of question and context, in order.

    ``tokenizer`` is a fast tokenizer of Hugging Face.
    """
    if not pairs:
        return []
    questions = _shortened(tokenizer, [question for question, _ in pairs], settings)
    encoded = tokenizer(
        questions,
        [context for _, context in pairs],
        truncation="only_second",
        max_length=settings.max_length,
        stride=settings.stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    offsets = encoded.pop("offset_mapping")
    owners = encoded.pop("overflow_to_sample_mapping")
    names = [name for name in tokenizer.model_input_names if name in encoded]
    return [
        Window(
            pair=owner,
            inputs={name: list(encoded[name][number]) for name in names},
            offsets=offsets[number],
            context_tokens=_context_tokens(encoded.sequence_ids(number)),
            null_place=_null_place(tokenizer, encoded["input_ids"][number]),
        )
        for number, owner in enumerate(owners)
    ]


def _shortened(tokenizer: Any, questions: list[str], settings: WindowSettings) -> list[str]:
    encoded = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True)
    limit = settings.max_question_tokens
    return [
        question[: offsets[limit - 1][1]] if len(offsets) > limit else question
        for question, offsets in zip(questions, encoded["offset_mapping"], strict=True)
    ]


def _context_tokens(sequences: Sequence[int | None]) -> tuple[int, int]:
    places = [place for place, sequence in enumerate(sequences) if sequence == 1]
    return (places[0], places[-1] + 1) if places else (0, 0)


def _null_place(tokenizer: Any, ids: list[int]) -> int:
    mark = tokenizer.cls_token_id
    return ids.index(mark) if mark in ids else 0
