"""How many tokens are worked through at once: halved when a GPU runs out of memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence

import torch

from clrelkt.encoders.ragged import RaggedBatch, token_budget_slices
from clrelkt.errors import EncoderError

__all__ = ["TokenBudget"]


class TokenBudget:
    """The most tokens that an encoder is given at once; None: no limit.

    ``say`` is told, once, that memory ran out and what was done about it; ``advice`` ends that.
    """

    def __init__(
        self,
        tokens: int | None = None,
        say: Callable[[str], None] | None = None,
        *,
        advice: str = "Nothing else changes; give --chunk-tokens to start so",
    ) -> None:
        self.tokens = tokens
        self._say = say
        self._advice = advice

    def cut(self, lengths: Sequence[int]) -> list[slice]:
        """Cut a row of texts, of so many tokens each, into runs within the budget."""
        if self.tokens is None:
            return [slice(0, len(lengths))] if len(lengths) else []
        return list(token_budget_slices(lengths, self.tokens))

    def halve(self, lengths: Sequence[int]) -> None:
        """Take half of the longest run that ``cut`` gave, and free what can be freed.

        Raises:
            EncoderError: that run is a single text, which is never cut.
        """
        runs = self.cut(lengths)
        tokens, texts = max((sum(lengths[run]), run.stop - run.start) for run in runs)
        if texts == 1:
            raise EncoderError(
                f"out of memory on a single text of {tokens} tokens. Split it into passages, or "
                "use a GPU with more memory"
            )
        first, self.tokens = self.tokens, tokens // 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._say is not None:
            was = f"{tokens} tokens" if first is None else f"{first} tokens or fewer"
            self._say(
                f"out of memory on {was} at once; going on with at most {self.tokens}. "
                f"{self._advice}"
            )
            self._say = None

    def encode(
        self, batch: RaggedBatch, encode: Callable[[RaggedBatch], torch.Tensor]
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield runs of texts within the budget and what ``encode`` makes of each.

        ``batch`` lies on a CPU. Where ``encode`` runs out of memory the budget is halved.
        """
        lengths = batch.lengths.tolist()
        done = 0
        while done < len(lengths):
            runs = [slice(done + run.start, done + run.stop) for run in self.cut(lengths[done:])]
            try:
                for run, part in zip(runs, batch.cut(runs), strict=True):
                    found = encode(part)
                    yield run, found
                    done = run.stop
            except torch.OutOfMemoryError:
                pass
            else:
                return
            self.halve(lengths[done:])
