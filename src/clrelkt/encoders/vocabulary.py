"""New SentencePiece pieces for an encoder, for languages that its own pieces cut to bits.

A unigram model is learnt for each language. Of its pieces those are taken that the encoder lacks,
that its languages do not need, and that are in use once all of them are there. A SentencePiece
model is a protocol buffer, whose repeated fields go on where bytes are put behind it: the grown
model begins with the old one, byte by byte, and every old piece keeps its id and its score.
"""

from __future__ import annotations

import io
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Literal, TypeVar, get_args

import numpy as np
import sentencepiece
import torch
from torch.nn import functional

from clrelkt.encoders.pieces import GrowableEncoder, NewPieces, PieceTokenizer
from clrelkt.errors import DataError, SettingsError
from clrelkt.text.alignment import align_tokens

__all__ = [
    "NewPieces",
    "Scope",
    "VocabularySettings",
    "aligned_rows",
    "learn_pieces",
    "segment_rows",
    "with_vocabulary",
]

E = TypeVar("E", bound=GrowableEncoder)

Scope = Literal["non-ascii", "all"]
"""Which pieces are taken: those with a letter beyond ASCII, or those with any letter.

Pieces with a character that the encoder does not know are taken with either.
"""

_MARK = "\u2581"
_BLOCK = 10_000
_THREADS = 2


@dataclass(frozen=True, slots=True)
class VocabularySettings:
    """How new pieces are learnt.

    ``pieces`` is the size of each language's unigram model, ``texts`` how many texts it is learnt
    from at most (the first ones), ``coverage`` the share of their characters that it must know.
    """

    pieces: int = 20_000
    scope: Scope = "all"
    texts: int = 100_000
    coverage: float = 0.9999

    def __post_init__(self) -> None:
        if self.pieces < 1 or self.texts < 1:
            raise SettingsError(f"pieces {self.pieces}, texts {self.texts}: at least 1 expected")
        if self.scope not in get_args(Scope):
            raise SettingsError(f"scope {self.scope!r}: {' or '.join(get_args(Scope))} expected")
        if not 0 < self.coverage <= 1:
            raise SettingsError(f"coverage {self.coverage}: expected above 0 and at most 1")


def learn_pieces(
    tokenizer: PieceTokenizer,
    texts: Mapping[str, Sequence[str]],
    settings: VocabularySettings | None = None,
    *,
    protected: Sequence[str] = (),
) -> NewPieces:
    """Learn pieces from the texts of each language that ``tokenizer`` lacks.

    No text of ``protected`` is cut differently with them, and each is in use in ``texts``. The
    same input gives the same pieces.

    Raises:
        DataError: the texts of a language are too few to learn a piece from.
        EncoderError: the vocabulary is of a kind that cannot grow.
    """
    settings = settings or VocabularySettings()
    old = tokenizer.scored_pieces()
    known = {piece for piece, _ in old}
    characters = frozenset(character for piece in known for character in piece)
    scores: dict[str, float] = {}
    # SentencePiece lets go of the interpreter while it learns: languages are learnt side by side.
    workers = max(1, min(len(texts), (os.cpu_count() or 1) // _THREADS))
    with ThreadPoolExecutor(workers) as pool:
        learnt = list(pool.map(_unigrams, texts, texts.values(), repeat(settings)))
    for found in learnt:
        for piece, score in found:
            if piece not in known and _in_scope(piece, settings.scope, characters):
                scores[piece] = max(scores.get(piece, score), score)
    low, high = _score_range(old)
    # Beyond the old range the scores of unknown characters and of user-defined pieces would move,
    # and with them the segmentation of texts that have no new piece.
    ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    new = NewPieces(
        tuple(piece for piece, _ in ordered),
        tuple(min(max(score, low), high) for _, score in ordered),
    )
    suspects = list(dict.fromkeys(protected))
    while suspects:
        # A text without a new piece stays without one when others go.
        used, suspects = _used(tokenizer, new, suspects)
        new = new.without(np.flatnonzero(used).tolist())
    everything = dict.fromkeys(text for own in texts.values() for text in own)
    used, _ = _used(tokenizer, new, list(everything))
    return new.without(np.flatnonzero(~used).tolist())


def segment_rows(encoder: GrowableEncoder, new: NewPieces) -> torch.Tensor:
    """Return a first embedding of each piece, shape (pieces, embedding).

    It is the mean of the rows that the piece is made of so far. Unknown tokens do not count, and
    a piece of nothing else gets the mean of all rows.
    """
    table = encoder.embedding.detach()
    tokenizer = encoder.tokenizer
    mean = table[: tokenizer.pieces].mean(0)
    # SentencePiece puts the mark of a word's beginning before every text.
    bare = [piece.removeprefix(_MARK).replace(_MARK, " ") for piece in new.pieces]
    lead = [piece for piece, _ in tokenizer.scored_pieces()].index(_MARK)
    known: list[int] = []
    offsets = []
    for piece, ids in zip(new.pieces, tokenizer.segment(bare), strict=True):
        inner = ids[1:] if ids[:1] == [lead] and not piece.startswith(_MARK) else ids
        offsets.append(len(known))
        known += [number for number in inner if number != tokenizer.unknown_id]
    ends = torch.tensor([*offsets, len(known)], device=table.device)
    rows = functional.embedding_bag(
        torch.tensor(known, dtype=torch.int64, device=table.device), table, ends[:-1], mode="mean"
    )
    return torch.where((ends.diff() > 0).unsqueeze(1), rows, mean)


def aligned_rows(
    encoder: GrowableEncoder,
    new: NewPieces,
    pairs: Iterable[tuple[Sequence[str], Sequence[str]]],
    *,
    rounds: int = 5,
    longest: int = 40,
) -> torch.Tensor:
    """Return a first embedding of each piece from translations, shape (pieces, embedding).

    It is the mean of the rows of the English tokens that the piece translates, weighted by how
    often IBM's Model 1 (Brown et al. 1993, https://aclanthology.org/J93-2003) aligns the two. A
    piece that nothing is aligned to gets its row of ``segment_rows``.

    Args:
        encoder: the encoder without the pieces.
        new: the pieces.
        pairs: for each language its English texts and as many translations.
        rounds: of expectation and maximisation.
        longest: texts of more tokens, on either side, are left out.
    """
    table = encoder.embedding.detach()
    first = encoder.tokenizer.pieces
    grown = encoder.tokenizer.grown(new)
    summed = table.new_zeros(len(new), table.shape[1])
    weight = table.new_zeros(len(new), 1)
    for english, other in pairs:
        aligned = align_tokens(
            grown.segment(other),
            encoder.tokenizer.segment(english),
            rounds=rounds,
            longest=longest,
        )
        wanted = (aligned.tokens >= first) & (aligned.translations >= 0)
        pieces = torch.from_numpy(aligned.tokens[wanted] - first).to(table.device)
        counts = torch.from_numpy(aligned.counts[wanted]).to(table).unsqueeze(1)
        translations = torch.from_numpy(aligned.translations[wanted]).to(table.device)
        for part in torch.split(torch.arange(len(pieces), device=table.device), _BLOCK * 10):
            rows = table[translations[part]] * counts[part]
            summed.index_add_(0, pieces[part], rows)
        weight.index_add_(0, pieces, counts)
    return torch.where(weight > 0, summed / weight.clamp_min(1e-12), segment_rows(encoder, new))


def with_vocabulary(encoder: E, new: NewPieces, rows: torch.Tensor, languages: Iterable[str]) -> E:
    """Return ``encoder`` with the pieces added, ``rows`` (pieces, embedding) as their embeddings.

    ``languages`` are added to those that it knows. Texts without a new piece keep their token ids
    and their vectors, bit by bit.
    """
    table = encoder.embedding.detach()
    first = encoder.tokenizer.pieces
    # mUSE's table has ten rows more than there are pieces: it was cut into 17 equal chunks. No
    # token ever had them, so the first new pieces take their place and the rest goes behind.
    grown = torch.cat([table[:first], rows.to(table), table[first + len(new) :]])
    return encoder.with_table(grown, encoder.tokenizer.grown(new), languages)


def _processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def _unigrams(
    language: str, texts: Sequence[str], settings: VocabularySettings
) -> list[tuple[str, float]]:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts[: settings.texts]),
            model_writer=model,
            model_type="unigram",
            vocab_size=settings.pieces,
            hard_vocab_limit=False,
            character_coverage=settings.coverage,
            # The number of threads decides how sums are rounded: the same everywhere.
            num_threads=_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(
            f"language {language!r}: no pieces can be learnt from {len(texts)} texts ({error})"
        ) from error
    learnt = _processor(model.getvalue())
    return [
        (learnt.id_to_piece(number), learnt.get_score(number))
        for number in range(learnt.get_piece_size())
        if not (learnt.is_control(number) or learnt.is_unknown(number))
    ]


def _in_scope(piece: str, scope: Scope, known: frozenset[str]) -> bool:
    """Tell whether a piece has a letter of the scope, or a character that is not ``known``."""
    # Vowel signs of Indic scripts are marks, not letters; their full stop is neither.
    return any(
        character not in known
        or (
            unicodedata.category(character)[0] in "LM"
            and (scope == "all" or not character.isascii())
        )
        for character in piece
    )


def _score_range(pieces: Sequence[tuple[str, float]]) -> tuple[float, float]:
    normal = [score for _, score in pieces if score < 0]
    return min(normal), max(normal)


def _used(
    tokenizer: PieceTokenizer, new: NewPieces, texts: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Tell which new pieces occur in the texts, shape (pieces,), and in which of them."""
    used = np.zeros(len(new), dtype=bool)
    users: list[str] = []
    grown = tokenizer.grown(new)
    first = tokenizer.pieces
    for start in range(0, len(texts), _BLOCK):
        block = texts[start : start + _BLOCK]
        ids = grown.segment(block)
        flat = np.fromiter((number for text in ids for number in text), dtype=np.int64)
        is_new = flat >= first
        used[flat[is_new] - first] = True
        text_of_token = np.repeat(np.arange(len(block)), [len(text) for text in ids])
        users += [block[number] for number in np.unique(text_of_token[is_new])]
    return used, users
