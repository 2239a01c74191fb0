"""Exported transformers, run by onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from clrelkt.encoders.description import DESCRIPTION_FILE
from clrelkt.encoders.protocol import TextKind
from clrelkt.errors import EncoderError, MissingExtraError
from clrelkt.progress import progress_bar
from clrelkt.sharing.onnx_encoder import require_onnxruntime, start_session

if TYPE_CHECKING:
    import onnxruntime

    from clrelkt.encoders.transformer.tokenizer import TransformerTokenizer

__all__ = ["KIND", "TOKENIZER_FILE", "TransformerOnnxEncoder", "padded_runs"]

KIND = "transformer-onnx"
TOKENIZER_FILE = "tokenizer.json"
_BATCH_TOKENS = 8_192
_CHUNK_TEXTS = 4_096


@dataclass(frozen=True, slots=True)
class _Description:
    """What ``clrelkt.json`` says of an export."""

    weights: str
    languages: frozenset[str]
    dimension: int
    question: str
    passage: str
    max_length: int

    @classmethod
    def read(cls, folder: Path) -> Self:
        found = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        if not isinstance(found, dict) or found.get("kind") != KIND:
            raise ValueError(f"{DESCRIPTION_FILE}: kind {KIND!r} expected")
        prompts = found["prompts"]
        texts = (found["weights"], prompts["question"], prompts["passage"], *found["languages"])
        numbers = (found["dimension"], found["max_length"])
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{DESCRIPTION_FILE}: weights, prompts and languages are texts")
        if not all(isinstance(number, int) and number > 0 for number in numbers):
            raise ValueError(f"{DESCRIPTION_FILE}: dimension and max_length are numbers above 0")
        return cls(
            weights=found["weights"],
            languages=frozenset(found["languages"]),
            dimension=found["dimension"],
            question=prompts["question"],
            passage=prompts["passage"],
            max_length=found["max_length"],
        )

    def prompt(self, kind: TextKind) -> str:
        return self.question if kind == "question" else self.passage


class TransformerOnnxEncoder:
    """A transformer whose network onnxruntime computes (Encoder); it cannot be trained.

    Texts longer than the model can read are split as TransformerEncoder splits them.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        tokenizer: TransformerTokenizer,
        name: str,
        description: _Description,
    ) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self._description = description
        self.name = name

    @classmethod
    def open(cls, folder: Path, *, threads: int | None = None) -> Self:
        """Open an export; ``threads`` is how many one text may keep busy (onnxruntime's default).

        Raises:
            MissingExtraError: onnxruntime or transformers (its tokenizers) is not installed.
            EncoderError: the folder is no such export.
        """
        require_onnxruntime()
        try:
            from transformers import PreTrainedTokenizerFast
        except ImportError as error:
            raise MissingExtraError("transformers", "transformers") from error
        from clrelkt.encoders.transformer.tokenizer import TransformerTokenizer

        try:
            description = _Description.read(folder)
            source: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
                tokenizer_file=str(folder / TOKENIZER_FILE)
            )
            tokenizer = TransformerTokenizer.of(source, description.max_length)
            session = start_session(folder, threads)
            (output,) = session.get_outputs()
            if output.shape[-1] != description.dimension:
                raise ValueError(
                    f"vectors of {output.shape[-1]} numbers, {description.dimension} expected"
                )
        except Exception as error:  # onnxruntime's own errors have no common root.
            raise EncoderError(f"{folder} is no exported ONNX encoder ({error})") from error
        return cls(session, tokenizer, str(folder), description)

    @property
    def weights(self) -> str:
        """Which weights it holds."""
        return self._description.weights

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._description.dimension

    @property
    def languages(self) -> frozenset[str]:
        """Languages that it was trained on."""
        return self._description.languages

    def encode(
        self, texts: Sequence[str], kind: TextKind = "passage", *, progress: bool = False
    ) -> np.ndarray:
        """Return unit vectors, shape (texts, dimension), float32."""
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        bar = progress_bar("encoding", total=len(texts), unit="texts", shown=progress)
        with bar as advance:
            for start in range(0, len(texts), _CHUNK_TEXTS):
                chunk = texts[start : start + _CHUNK_TEXTS]
                vectors[start : start + len(chunk)] = self._any_length(chunk, kind)
                advance(len(chunk))
        return vectors

    def _any_length(self, texts: Sequence[str], kind: TextKind) -> np.ndarray:
        from clrelkt.encoders.transformer.encoder import cut_passages

        batch = self._tokenizer.batch(texts, self._description.prompt(kind))
        lengths = batch.host_lengths.numpy()
        limit = self._tokenizer.max_length
        if lengths.max() <= limit:
            return self._vectors(batch.token_ids.numpy(), lengths)
        passages, counts = cut_passages(batch, lengths, self._tokenizer.marks, limit)
        own = passages.host_lengths.numpy()
        weighted = self._vectors(passages.token_ids.numpy(), own) * own[:, None]
        firsts = counts.numpy().cumsum() - counts.numpy()
        summed = np.add.reduceat(weighted, firsts, axis=0)
        unit: np.ndarray = summed / np.linalg.norm(summed, axis=1, keepdims=True)
        return unit

    def _vectors(self, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return the vectors of texts that are not too long; ``ids`` are theirs, end to end."""
        starts = lengths.cumsum() - lengths
        found = np.empty((len(lengths), self.dimension), dtype=np.float32)
        for rows in padded_runs(lengths, _BATCH_TOKENS):
            places = np.arange(lengths[rows].max())
            mask = places < lengths[rows, None]
            padded = np.where(mask, ids[np.where(mask, starts[rows, None] + places, 0)], 0)
            (found[rows],) = self._session.run(
                None, {"input_ids": padded, "attention_mask": mask.astype(np.int64)}
            )
        return found


def padded_runs(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Yield which texts go together, the longest first: ``budget`` tokens, padding included.

    A text longer than the budget is a run of its own.
    """
    order: Any = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + count]
        start += count
