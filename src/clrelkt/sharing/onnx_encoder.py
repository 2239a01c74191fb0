"""Exported ONNX graphs, run by onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from clrelkt.encoders.protocol import TextKind
from clrelkt.encoders.ragged import token_budget_slices
from clrelkt.errors import EncoderError, MissingExtraError
from clrelkt.progress import progress_bar

if TYPE_CHECKING:
    import onnxruntime

    from clrelkt.encoders.tokenizer import SentencePieceTokenizer

__all__ = ["GRAPH_FILE", "PIECES_FILE", "OnnxEncoder", "require_onnxruntime", "start_session"]

GRAPH_FILE = "model.onnx"
PIECES_FILE = "sentencepiece.model"
_BATCH_TOKENS = 16_384


class OnnxEncoder:
    """An encoder whose network onnxruntime computes (Encoder); it cannot be trained."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        tokenizer: SentencePieceTokenizer,
        name: str,
        description: dict[str, Any],
    ) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self._description = description
        self.name = name

    @classmethod
    def open(cls, folder: Path, *, threads: int | None = None) -> Self:
        """Open an export; ``threads`` is how many one text may keep busy (onnxruntime's default).

        Raises:
            MissingExtraError: onnxruntime is not installed.
            EncoderError: the folder is no such export.
        """
        from clrelkt.encoders.description import DESCRIPTION_FILE
        from clrelkt.encoders.tokenizer import SentencePieceTokenizer

        require_onnxruntime()
        try:
            description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
            pieces = (folder / PIECES_FILE).read_bytes()
            session = start_session(folder, threads)
            languages, weights = description["languages"], description["weights"]
            if not isinstance(languages, list) or not isinstance(weights, str):
                raise ValueError("languages and weights expected")
        except Exception as error:  # onnxruntime's own errors have no common root.
            raise EncoderError(f"{folder} is no exported ONNX encoder ({error})") from error
        return cls(session, SentencePieceTokenizer(pieces), str(folder), description)

    @property
    def weights(self) -> str:
        """Which weights it holds."""
        return str(self._description["weights"])

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        (output,) = self._session.get_outputs()
        return int(output.shape[1])

    @property
    def languages(self) -> frozenset[str]:
        """Languages that it was trained on."""
        return frozenset(self._description["languages"])

    def encode(
        self, texts: Sequence[str], kind: TextKind = "passage", *, progress: bool = False
    ) -> np.ndarray:
        """Return unit vectors, shape (texts, dimension), float32."""
        ids = self._tokenizer(texts)
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        lengths = [len(text) for text in ids]
        bar = progress_bar("encoding", total=len(texts), unit="texts", shown=progress)
        with bar as advance:
            for run in token_budget_slices(lengths, _BATCH_TOKENS):
                vectors[run] = self._run(ids[run])
                advance(run.stop - run.start)
        return vectors

    def _run(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        flat = np.array([token for text in ids for token in text], dtype=np.int64)
        lengths = np.array([len(text) for text in ids], dtype=np.int64)
        (found,) = self._session.run(None, {"token_ids": flat, "lengths": lengths})
        return np.asarray(found)


def require_onnxruntime() -> None:
    """Raise MissingExtraError where onnxruntime is not installed."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx") from error


def start_session(folder: Path, threads: int | None) -> onnxruntime.InferenceSession:
    """Open the graph of ``folder`` on the CPU; whatever onnxruntime raises is passed on."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    return onnxruntime.InferenceSession(
        str(folder / GRAPH_FILE), options, providers=["CPUExecutionProvider"]
    )
