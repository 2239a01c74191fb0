"""The transfer stage on a corpus, one step at a time."""

from __future__ import annotations

import numpy as np
import torch

from clrelkt.encoders import MuseEncoder
from clrelkt.mining import Granularity
from clrelkt.training import load_recipe
from clrelkt.training.bank import TextBank, texts_of
from clrelkt.training.methods import prepare
from clrelkt.training.recipe import Transfer
from clrelkt.training.stage_method import Material
from harness import Options, read_encoder, read_questions

__all__ = ["TransferStage", "adam"]


def adam(parameters: list[torch.nn.Parameter]) -> torch.optim.Adam:
    """Return the optimiser of the training loop."""
    return torch.optim.Adam(parameters, lr=1e-3, eps=1e-7, fused=True)


class TransferStage:
    """Pairs of a question and its gold text, with mUSE as the teacher.

    ``base`` is the encoder with the whole vocabulary; ``settings`` are the XQuAD recipe's, but for
    the granularity.
    """

    def __init__(self, options: Options, granularity: Granularity) -> None:
        stage = load_recipe("xquad").stage("student")
        assert isinstance(stage.method, Transfer)
        self.settings = Transfer(stage.method.weights, granularity)
        self.corpus = read_questions(options)
        self.base = read_encoder(options)
        known = [code for code in self.corpus.languages if code in self.base.languages]
        self._languages = [code for code in known if code != self.corpus.document_language]
        self._texts = texts_of((self.corpus,))
        self.bank = self.bank_of(self.base)
        material = Material(
            corpus=self.corpus,
            questions=self.corpus.in_languages(self._languages).questions,
            bank=self.bank,
            start=self.base,
            seed=0,
            stage=0,
        )
        self.method = prepare(self.settings, material)
        self.examples = self.method.examples(0, self.base)

    def bank_of(self, encoder: MuseEncoder) -> TextBank:
        """Return the texts with the token ids of ``encoder``."""
        return TextBank(*self._texts, encoder)

    def compact(self) -> MuseEncoder:
        """Return a copy of the base with the vocabulary of the corpus alone."""
        return self.base.compact(TextBank.token_ids(self.base, *self._texts))

    def batches(self, count: int, pairs: int) -> list[np.ndarray]:
        """Return random batches, shape (pairs, 3) each: question, gold text, English question."""
        rng = np.random.default_rng(0)
        return [self.examples[rng.permutation(len(self.examples))[:pairs]] for _ in range(count)]

    def loss(self, encoder: MuseEncoder, bank: TextBank, examples: np.ndarray) -> torch.Tensor:
        """Return the loss, each distinct text encoded once, as the training loop does it."""
        distinct, places = np.unique(examples[:, :2], return_inverse=True)
        vectors = encoder(bank.select(distinct))
        index = torch.from_numpy(places.reshape(-1, 2)).to(vectors.device)
        return self.method.loss(torch.nn.functional.embedding(index, vectors), examples)

    def step(
        self,
        encoder: MuseEncoder,
        bank: TextBank,
        optimiser: torch.optim.Optimizer,
        examples: np.ndarray,
    ) -> float:
        """Train ``encoder`` on one batch and return the loss."""
        loss = self.loss(encoder, bank, examples)
        value = float(loss.detach())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return value
