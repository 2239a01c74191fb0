"""The texts of a run: each once, tokenised once.

The tokens stay in the host's memory. A GPU is sent those of a batch, which takes less time than
to wait for it to choose them itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from clrelkt.corpora.model import Corpus
from clrelkt.encoders import Encoder, RaggedBatch, TextKind, TrainableEncoder
from clrelkt.encoders.memory import TokenBudget
from clrelkt.errors import DataError
from clrelkt.mining.texts import Encode
from clrelkt.training.process_group import ProcessGroup, balanced_shares

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

    ``lengths`` (texts,) holds the number of tokens of each text. In a run of several processes all
    of ``group`` ask for the same vectors at the same time, and each makes its share.
    """

    def __init__(
        self,
        questions: Sequence[str],
        candidates: Sequence[str],
        encoder: TrainableEncoder,
        group: ProcessGroup | None = None,
    ) -> None:
        """Tokenise ``questions`` and ``candidates``; a text may be in both."""
        self._group = group or ProcessGroup(device=encoder.device)
        self._budget = TokenBudget(_ENCODE_TOKENS)
        texts: list[tuple[str, TextKind]] = [(text, "question") for text in questions]
        texts += [(text, "passage") for text in candidates]
        self._row = {text: row for row, text in enumerate(texts)}
        parts = [encoder.tokenize(questions, "question"), encoder.tokenize(candidates, "passage")]
        self._batch = RaggedBatch(
            torch.cat([part.token_ids for part in parts]),
            torch.cat([part.lengths for part in parts]),
        )
        self.lengths = self._batch.lengths.numpy()

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def device(self) -> torch.device:
        """Where texts are encoded."""
        return self._group.device

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
        """Return the texts of ``rows`` (texts,), on the device that encodes."""
        return self.select_on_host(rows).to(self.device)

    def select_on_host(
        self,
        rows: np.ndarray,
        share: np.ndarray | None = None,
        *,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> RaggedBatch:
        """Return the texts of ``rows`` (texts,) without a share ``dropout`` of their tokens.

        The first and the last token of a text, its marks, always stay. With ``share`` only the
        texts at these places among ``rows``; what is left out of them does not depend on it.
        """
        if not dropout:
            own = rows if share is None else rows[share]
            return self._batch.select(torch.from_numpy(own))
        batch = _lessened(self._batch.select(torch.from_numpy(rows)), dropout, seed)
        return batch if share is None else batch.select(torch.from_numpy(share))

    @torch.no_grad()
    def vectors(self, encoder: TrainableEncoder, rows: np.ndarray) -> torch.Tensor:
        """Return unit vectors of the texts of ``rows``, shape (texts, dimension), no gradients."""
        shares = balanced_shares(self.lengths[rows], self._group.size)
        own = self._own_vectors(encoder, rows[shares[self._group.rank]])
        gathered = self._group.gather(own, [len(share) for share in shares])
        if self._group.size == 1:
            return gathered
        order = torch.from_numpy(np.argsort(np.concatenate(shares))).to(gathered.device)
        return gathered[order]

    def _own_vectors(self, encoder: TrainableEncoder, rows: np.ndarray) -> torch.Tensor:
        lengths = self.lengths[rows].tolist()
        while True:
            try:
                parts = [encoder(self.select(rows[run])) for run in self._budget.cut(lengths)]
                like = torch.empty(0, encoder.dimension, device=self.device)
                return torch.cat(parts) if parts else like
            except torch.OutOfMemoryError:
                pass
            self._budget.halve(lengths)

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


def _lessened(batch: RaggedBatch, dropout: float, seed: int) -> RaggedBatch:
    """Return texts on the host without a share of their tokens, but with the first and the last."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(batch.tokens, generator=generator).numpy() >= dropout
    lengths = batch.lengths.numpy()
    ends = lengths.cumsum()
    starts = ends - lengths
    kept[ends - 1] = True
    kept[starts] = True
    # As in selecting, no operation of torch that would wake other threads.
    if len(batch):
        lengths = np.add.reduceat(kept, starts, dtype=np.int64)
    ids = batch.token_ids.numpy()[kept]
    return RaggedBatch(torch.from_numpy(ids), torch.from_numpy(lengths))
