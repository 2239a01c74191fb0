"""Transformers of real shapes with made weights, a made tokenizer of 250,000 rows, and texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

__all__ = ["SHAPES", "MadeTexts", "Shape", "made_words", "save_made_model"]

ROWS = 250_002
"""XLM-R's."""
MAX_LENGTH = 512
_SYLLABLES = [c + v for c in "bcdfghjklmnprstvz" for v in ("a", "e", "i", "o", "u", "an", "er")]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a network of XLM-R's architecture."""

    layers: int
    width: int
    heads: int
    inner: int

    @property
    def layer_parameters(self) -> int:
        """Numbers in the matrices of all layers: what each token is multiplied with."""
        return self.layers * (4 * self.width**2 + 2 * self.width * self.inner)


SHAPES = {
    "xlm-r-base": Shape(12, 768, 12, 3072),
    "minilm-l12": Shape(12, 384, 12, 1536),
    "tiny": Shape(2, 64, 4, 128),
}


def made_words(rows: int = ROWS) -> list[str]:
    """Return the words of the made vocabulary, the most frequent first."""
    rng = np.random.default_rng(0)
    found: dict[str, None] = {}
    wanted = rows - 40
    while len(found) < wanted:
        sizes = rng.integers(2, 5, wanted)
        drawn = rng.integers(0, len(_SYLLABLES), (wanted, 4))
        for size, row in zip(sizes, drawn, strict=True):
            found["".join(_SYLLABLES[number] for number in row[:size])] = None
    return list(found)[:wanted]


def save_made_model(folder: Path, shape: Shape, rows: int = ROWS) -> Path:
    """Write a plain folder of Hugging Face; there is no dropout, on either side."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    marks = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    words = made_words(rows)
    vocabulary = [(mark, 0.0) for mark in marks] + [(letter, -16.0) for letter in letters]
    vocabulary += [(f"\u2581{word}", -8 - number / rows) for number, word in enumerate(words)]
    vocabulary = [*vocabulary[: rows - 1], ("<mask>", 0.0)]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = ("bos", "pad", "eos", "unk", "cls", "sep", "mask")
    tokens = ("<s>", "<pad>", "</s>", "<unk>", "<s>", "</s>", "<mask>")
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        model_max_length=MAX_LENGTH,
        **{f"{name}_token": token for name, token in zip(names, tokens, strict=True)},
    )
    tokenizer.save_pretrained(str(folder))
    config = XLMRobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.inner,
        max_position_embeddings=MAX_LENGTH + 2,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    XLMRobertaModel(config).save_pretrained(str(folder))
    return folder


class MadeTexts:
    """Texts of the made words, of a mean number of tokens each, all different.

    Words follow Zipf's law; lengths lie within a quarter of their mean.
    """

    def __init__(self, words: list[str], seed: int = 0) -> None:
        self._words = words
        self._rng = np.random.default_rng(seed)

    def draw(self, count: int, tokens: int) -> list[str]:
        """Return texts of about ``tokens`` tokens, the marks included."""
        low, high = round(0.75 * (tokens - 2)), round(1.25 * (tokens - 2))
        return self.of(self._rng.integers(low, high + 1, count))

    def of(self, lengths: np.ndarray) -> list[str]:
        """Return texts of ``lengths`` (texts,) tokens, the marks not included."""
        total = int(lengths.sum())
        ranks = np.exp(self._rng.random(total) * np.log(len(self._words))).astype(np.int64)
        drawn = [self._words[min(rank, len(self._words) - 1)] for rank in ranks]
        texts, start = [], 0
        for length in lengths:
            texts.append(" ".join(drawn[start : start + length]))
            start += length
        return texts
