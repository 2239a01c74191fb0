"""The texts of a run: each once, tokenised once, on the device that trains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from clrelkt.corpora.model import Corpus
from clrelkt.encoders import Encoder, RaggedBatch, TextKind, TrainableEncoder
from clrelkt.encoders.ragged import token_budget_slices
from clrelkt.errors import DataError
from clrelkt.mining.texts import Encode

__all__ = ["TextBank", "texts_of"]

_ENCODE_TOKENS = 131_072


def texts_of(corpora: Iterable[Corpus]) -> tuple[list[str], list[str]]:
    """Return the distinct questions, and the distinct documents and passages, of all corpora."""
    questions: dict[str, None] = {}
    candidates: dict[str, None] = {}
    for corpus in corpora:
        questions |= dict.fromkeys(question.text for question in corpus.questions)
        candidates |= dict.fromkeys(document.text for document in corpus.documents)
        candidates |= dict.fromkeys(passage.text for passage in corpus.passage_by_id.values())
    return list(questions), list(candidates)


class TextBank:
    """Distinct texts by row number, tokenised with an encoder.

    ``lengths`` (texts,) holds the number of tokens of each text.
    """

    def __init__(
        self, questions: Sequence[str], candidates: Sequence[str], encoder: TrainableEncoder
    ) -> None:
        """Tokenise ``questions`` and ``candidates``; a text may be in both."""
        texts: list[tuple[str, TextKind]] = [(text, "question") for text in questions]
        texts += [(text, "passage") for text in candidates]
        self._row = {text: row for row, text in enumerate(texts)}
        parts = [encoder.tokenize(questions, "question"), encoder.tokenize(candidates, "passage")]
        self._batch = RaggedBatch(
            torch.cat([part.token_ids for part in parts]),
            torch.cat([part.lengths for part in parts]),
        ).to(encoder.device)
        self.lengths = self._batch.lengths.cpu().numpy()

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def device(self) -> torch.device:
        """Where the token ids lie."""
        return self._batch.token_ids.device

    def rows(self, texts: Iterable[str], kind: TextKind) -> np.ndarray:
        """Return the row numbers of texts, shape (texts,), int64.

        Raises:
            DataError: one of them is not in the bank.
        """
        try:
            return np.array([self._row[text, kind] for text in texts], dtype=np.int64)
        except KeyError as error:
            raise DataError(f"the text {error.args[0][0][:60]!r} is none of this run") from error

    def select(self, rows: np.ndarray) -> RaggedBatch:
        """Return the texts of ``rows`` (texts,), on the bank's device."""
        return self._batch.select(torch.from_numpy(rows).to(self.device))

    def select_partly(self, rows: np.ndarray, dropout: float, seed: int) -> RaggedBatch:
        """Return the texts of ``rows`` (texts,) without a share ``dropout`` of their tokens.

        The first and the last token of a text, its marks, always stay.
        """
        batch = self.select(rows)
        generator = torch.Generator(self.device).manual_seed(seed)
        kept = torch.rand(batch.tokens, device=self.device, generator=generator) >= dropout
        ends = batch.lengths.cumsum(0)
        kept[ends - 1] = True
        kept[ends - batch.lengths] = True
        lengths = torch.bincount(batch.text_of_token[kept], minlength=len(batch))
        return RaggedBatch(batch.token_ids[kept], lengths)

    @torch.no_grad()
    def vectors(self, encoder: TrainableEncoder, rows: np.ndarray) -> torch.Tensor:
        """Return unit vectors of the texts of ``rows``, shape (texts, dimension), no gradients."""
        runs = token_budget_slices(self.lengths[rows].tolist(), _ENCODE_TOKENS)
        parts = [encoder(self.select(rows[run])) for run in runs]
        return torch.cat(parts) if parts else torch.empty(0, encoder.dimension, device=self.device)

    def encode_with(self, encoder: TrainableEncoder) -> Encode:
        """Return a function from texts of the bank to vectors, for mining and evaluation."""

        def encode(texts: Sequence[str], kind: TextKind) -> np.ndarray:
            return self.vectors(encoder, self.rows(texts, kind)).float().cpu().numpy()

        return encode

    @staticmethod
    def token_ids(
        encoder: Encoder, questions: Sequence[str], candidates: Sequence[str]
    ) -> torch.Tensor:
        """Return the token ids that the texts use, for ``TrainableEncoder.compact``."""
        assert isinstance(encoder, TrainableEncoder)
        return torch.cat(
            [
                encoder.tokenize(questions, "question").token_ids,
                encoder.tokenize(candidates, "passage").token_ids,
            ]
        )
