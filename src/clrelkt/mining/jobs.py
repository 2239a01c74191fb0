"""Mining of whole sets, in chunks that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from clrelkt.encoders.protocol import Encoder
from clrelkt.encoders.triton_kernels import on_device
from clrelkt.mining.bm25 import BM25Miner, BM25Mining
from clrelkt.mining.chunks import ChunkFolder, Work
from clrelkt.mining.dense import DenseMining
from clrelkt.mining.large import LargeMiner, ScreenName, full_precision
from clrelkt.mining.output import Mined, mined_of
from clrelkt.mining.sets import MiningSet
from clrelkt.mining.texts import distinct
from clrelkt.mining.vectors import encode_in_chunks
from clrelkt.text.words import WordTokenizer

__all__ = ["BM25Job", "DenseJob", "Progress", "SetVectors", "texts_by_id"]

Progress = Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]
"""A bar: from its label, the total and the unit to a function that is told what is done."""

_TEXTS_AT_ONCE = 8_192


@dataclass(frozen=True)
class BM25Job:
    """BM25 negatives for a set; ``size`` questions make a chunk."""

    given: MiningSet
    settings: BM25Mining
    words: WordTokenizer
    size: int = 8_192

    @cached_property
    def _miner(self) -> BM25Miner:
        return BM25Miner(self.given.candidate_texts, self.given.document, self.settings, self.words)

    @property
    def work(self) -> Work:
        """The chunks."""
        return Work(f"{self.given.name}bm25", len(self.given), self.size)

    def run(self, folder: ChunkFolder, bar: Progress, *, share: tuple[int, int] = (0, 1)) -> None:
        """Mine what is missing in ``folder``; texts are indexed only where anything is."""

        def chunk(rows: slice) -> np.ndarray:
            asked = self.given.queries or self.given.question_texts
            return self._miner.mine(asked[rows], self.given.golds[rows])

        with bar("BM25", len(self.given), "questions") as done:
            folder.compute(self.work, chunk, done, share=share)

    def mined(self, folder: ChunkFolder) -> Iterator[Mined]:
        """Yield the triplets."""
        for rows, negatives in folder.chunks(self.work):
            yield from mined_of(self.given, rows.start, negatives, None)


@dataclass(frozen=True, slots=True)
class SetVectors:
    """Unit vectors of a set: ``questions`` (distinct question ids, dimension), ``candidates``."""

    questions: np.ndarray
    candidates: np.ndarray

    @classmethod
    def encoded(
        cls, given: MiningSet, encoder: Encoder, folder: ChunkFolder, bar: Progress
    ) -> SetVectors:
        """Encode a set's texts, or take what is in ``folder``."""
        texts = dict(zip(given.question_ids, given.question_texts, strict=True))
        sides: list[np.ndarray] = []
        for kind, of_kind in (
            ("question", tuple(texts.values())),
            ("passage", given.candidate_texts),
        ):
            with bar(f"{kind}s", len(set(of_kind)), "texts") as done:
                vectors = encode_in_chunks(
                    encoder,
                    of_kind,
                    "question" if kind == "question" else "passage",
                    folder,
                    f"{given.name}{kind}s",
                    size=_TEXTS_AT_ONCE,
                    done=done,
                )
            sides.append(vectors)
        return cls(*sides)


@dataclass(frozen=True)
class DenseJob:
    """Dense negatives for a set; ``size`` questions make a chunk, ``devices`` take them in turn.

    Each device has all candidates, within ``memory`` bytes: what is found is the same on any.
    """

    given: MiningSet
    settings: DenseMining
    seed: int
    size: int = 65_536
    devices: Sequence[torch.device | str] = ("cpu",)
    memory: int | None = None
    screen: ScreenName = "auto"

    @property
    def work(self) -> Work:
        """The chunks."""
        return Work(f"{self.given.name}dense", len(self.given), self.size)

    def run(
        self,
        vectors: SetVectors,
        folder: ChunkFolder,
        bar: Progress,
        *,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Mine what is missing in ``folder``.

        Raises:
            DataError: vectors of two dimensions, or that are no unit vectors.
        """
        which = distinct(self.given.question_ids)[1]
        text = distinct(self.given.candidate_texts)[1]

        def chunk_on(device: torch.device) -> Callable[[slice], np.ndarray]:
            with on_device(device):
                miner = LargeMiner(
                    vectors.candidates,
                    self.given.document,
                    text,
                    self.settings,
                    self.seed,
                    device=device,
                    memory=self.memory,
                    screen=self.screen,
                )

            def chunk(rows: slice) -> np.ndarray:
                asked = np.asarray(vectors.questions[which[rows]], np.float32)
                with on_device(device):
                    return miner.mine(asked, self.given.golds[rows], first=rows.start).numpy()

            return chunk

        with (
            bar("mining", len(self.given), "questions") as done,
            full_precision(),
            ThreadPoolExecutor(len(self.devices)) as pool,
        ):
            chunks = list(pool.map(chunk_on, map(torch.device, self.devices)))
            folder.compute_side_by_side(self.work, chunks, done, share=share)

    def mined(self, folder: ChunkFolder) -> Iterator[Mined]:
        """Yield the triplets."""
        for rows, negatives in folder.chunks(self.work):
            yield from mined_of(self.given, rows.start, negatives, self.settings.hard)


def texts_by_id(sets: Sequence[MiningSet]) -> dict[str, str]:
    """Return the texts of sets, questions under ``q`` and their id, candidates under ``c``."""
    found: dict[str, str] = {}
    for given in sets:
        found |= {
            "q" + id_: t for id_, t in zip(given.question_ids, given.question_texts, strict=True)
        }
        found |= {
            "c" + id_: text
            for id_, text in zip(given.candidate_ids, given.candidate_texts, strict=True)
        }
    return found
