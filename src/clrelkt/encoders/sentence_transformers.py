"""mUSE as a sentence-transformers module, so that a saved encoder opens there too.

``SentenceTransformer(folder, trust_remote_code=True)`` finds ``MuseModule`` by its name where
clrelkt is installed; ``to_sentence_transformer(folder)`` needs no such flag.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

try:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules.input_module import InputModule
except ImportError as error:
    from clrelkt.errors import MissingExtraError

    raise MissingExtraError("sentence-transformers", "sentence-transformers") from error

from clrelkt.encoders import load_encoder, load_muse
from clrelkt.encoders.muse.encoder import MuseEncoder
from clrelkt.encoders.ragged import RaggedBatch

__all__ = ["MuseModule", "to_sentence_transformer"]


class MuseModule(InputModule):
    """An input module that turns texts into mUSE's sentence embeddings.

    The features are a flat row of token ids, ``input_ids`` of shape (tokens,), and the texts'
    ``lengths`` of shape (texts,): nothing is padded.
    """

    def __init__(self, encoder: MuseEncoder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.encoder = encoder

    @property
    def tokenizer(self) -> Any:  # type: ignore[override]
        """The SentencePiece tokenizer."""
        return self.encoder.tokenizer

    @property
    def max_seq_length(self) -> None:
        """No limit: mUSE reads texts of any length."""
        return None

    def preprocess(  # type: ignore[override]
        self, inputs: Sequence[str], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Turn texts into token ids and lengths."""
        texts = [prompt + text for text in inputs] if prompt else list(inputs)
        batch = self.encoder.tokenize(texts)
        return {"input_ids": batch.token_ids, "lengths": batch.lengths}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add ``sentence_embedding``, shape (texts, 512)."""
        batch = RaggedBatch(features["input_ids"], features["lengths"])
        return features | {"sentence_embedding": self.encoder(batch)}

    def get_embedding_dimension(self) -> int:
        """Length of a vector."""
        return self.encoder.dimension

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write the encoder beside sentence-transformers' own files."""
        from clrelkt.encoders.storage import write_muse_files

        write_muse_files(self.encoder, Path(output_path), "whole")

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **kwargs: Any) -> Self:
        """Read the encoder that the folder holds."""
        return cls(load_muse(Path(model_name_or_path)))


def to_sentence_transformer(encoder: MuseEncoder | str | Path) -> SentenceTransformer:
    """Return a SentenceTransformer with the vectors of ``encoder`` (or of the one saved there)."""
    loaded = encoder if isinstance(encoder, MuseEncoder) else load_encoder(encoder)
    if not isinstance(loaded, MuseEncoder):
        return SentenceTransformer(str(encoder), device=str(loaded.device))
    return SentenceTransformer(modules=[MuseModule(loaded)], similarity_fn_name="cosine")
