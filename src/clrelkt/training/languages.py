"""New languages for an encoder, taught by translations.

The encoder gets new pieces for the languages, and only their embeddings are trained: a text in a
new language shall get the vector that the encoder gives its English translation. This is
distillation from parallel data (Reimers and Gurevych 2020, https://arxiv.org/abs/2004.09813) with
everything that other languages use frozen: what the encoder knew, it knows as before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
import torch

from clrelkt.corpora.pairs import KINDS, SentencePairs, drop_shared, hold_out
from clrelkt.encoders import Encoder, RaggedBatch, SaveForm
from clrelkt.encoders.description import chosen_form
from clrelkt.encoders.pieces import GrowableEncoder
from clrelkt.encoders.vocabulary import (
    NewPieces,
    Scope,
    VocabularySettings,
    aligned_rows,
    learn_pieces,
    segment_rows,
    with_vocabulary,
)
from clrelkt.errors import DataError, SettingsError, TrainingError
from clrelkt.evaluation.translation import TranslationResult, translation_retrieval
from clrelkt.mining.texts import distinct
from clrelkt.objectives import alignment_loss
from clrelkt.progress import progress_bar
from clrelkt.text import IcuWords
from clrelkt.training.device import choose_device, matrix_precision
from clrelkt.training.environment import describe_environment
from clrelkt.training.refinement import RefinementSettings, Translations, refine
from clrelkt.training.schedule import one_cycle

__all__ = [
    "LanguageAddition",
    "LanguageMeasure",
    "LanguageReport",
    "LanguageSettings",
    "add_languages",
    "check_languages",
]

Start = Literal["aligned", "segments"]
"""What the embedding of a new piece starts as."""

FORMAT = 1
RECORD_FILE = "languages.json"
FEWEST_PAIRS = 100
FEW_PAIRS = 2_000
"""With fewer pairs a language can hardly be learnt."""

_CHECK_EVERY = 50
_CAPS = MappingProxyType(
    {"sentences": 40_000, "docs": 15_000, "ui_docs_po": 45_000, "dict": 15_000}
)
_WEIGHTS = MappingProxyType(dict.fromkeys(KINDS, 1.0))


@dataclass(frozen=True, slots=True)
class LanguageSettings:
    """How languages are added.

    ``pieces``, ``scope``, ``texts`` and ``coverage`` say which pieces are learnt
    (``VocabularySettings``). Their embeddings start as the mean of the English ones that they
    are ``aligned`` to, or of the ``segments`` that they replace. ``batch`` pairs of all languages
    make a step. The learning rate rises to ``learning_rate`` during the share ``warm_up`` of the
    steps and falls to nothing then (one cycle). The loss is a softmax over the batch's English
    vectors at ``temperature``, plus ``closeness`` times 1 - cosine.

    With ``refine_epochs`` all parameters are trained for so many epochs more, at the rate
    ``refine_rate``, and held to what the encoder knew (``clrelkt.training.refinement``). Vectors of
    known texts then move a little; with 0 they stay bit by bit.

    ``caps`` is how many pairs of each kind are taken from a language at most, ``weights`` what a
    pair of the kind counts in the loss. ``held_out`` sentences of a language, or a third of them
    where there are not three times as many, are kept to measure it; with ``held_out_source``
    sentences from there alone, at most half of them.
    """

    pieces: int = 20_000
    scope: Scope = "all"
    texts: int = 100_000
    coverage: float = 0.9999
    start: Start = "aligned"
    batch: int = 2_048
    epochs: int = 12
    learning_rate: float = 5e-3
    warm_up: float = 0.3
    temperature: float = 0.05
    closeness: float = 20.0
    refine_epochs: int = 0
    refine_rate: float = 5e-4
    held_out: int = 2_000
    held_out_source: str | None = None
    caps: Mapping[str, int] = field(default_factory=lambda: _CAPS)
    weights: Mapping[str, float] = field(default_factory=lambda: _WEIGHTS)

    def __post_init__(self) -> None:
        _ = self.vocabulary, self.refinement
        if self.start not in get_args(Start):
            raise SettingsError(f"start {self.start!r}: {' or '.join(get_args(Start))} expected")
        if self.epochs < 0:
            raise SettingsError(f"epochs {self.epochs}: at least 0 expected")
        for name in ("batch", "learning_rate", "temperature", "held_out"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} {getattr(self, name)}: above 0 expected")
        if not 0 <= self.warm_up < 1 or self.closeness < 0:
            raise SettingsError(
                f"warm_up {self.warm_up}, closeness {self.closeness}: from 0 to below 1 and at "
                "least 0 expected"
            )
        for name in ("caps", "weights"):
            values: Mapping[str, float] = getattr(self, name)
            if set(values) - set(KINDS) or any(value < 0 for value in values.values()):
                raise SettingsError(
                    f"{name} {dict(values)}: numbers of at least 0 for {', '.join(KINDS)} expected"
                )

    @property
    def vocabulary(self) -> VocabularySettings:
        """How pieces are learnt."""
        return VocabularySettings(self.pieces, self.scope, self.texts, self.coverage)

    @property
    def refinement(self) -> RefinementSettings:
        """How the whole network is refined."""
        return RefinementSettings(
            epochs=self.refine_epochs,
            batch=self.batch,
            learning_rate=self.refine_rate,
            temperature=self.temperature,
            closeness=self.closeness,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        record = {name: getattr(self, name) for name in self.__slots__}
        return record | {"caps": dict(self.caps), "weights": dict(self.weights)}


@dataclass(frozen=True, slots=True)
class LanguageMeasure:
    """What an encoder makes of the held-out sentences of a language.

    ``unknown`` is the share of tokens that stand for unknown characters, ``tokens_per_word`` are
    tokens a word of ICU.
    """

    unknown: float
    tokens_per_word: float
    translation: TranslationResult

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "unknown": self.unknown,
            "tokens_per_word": self.tokens_per_word,
            "translation": self.translation.to_json(),
        }


@dataclass(frozen=True, slots=True)
class LanguageReport:
    """What one language was taught with, and what came of it.

    ``pairs`` counts the training pairs by source, ``extra`` those that were given beside them.
    """

    language: str
    pieces: int
    pairs: Mapping[str, int]
    extra: int
    before: LanguageMeasure
    after: LanguageMeasure

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "language": self.language,
            "pieces": self.pieces,
            "pairs": dict(self.pairs),
            "extra": self.extra,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
        }


@dataclass(frozen=True)
class LanguageAddition:
    """The encoder that knows the new languages, a report for each of them, and how it was made.

    ``start`` is the name of the encoder that it began as, ``protected`` the number of texts whose
    tokens were kept.
    """

    encoder: GrowableEncoder
    reports: Mapping[str, LanguageReport]
    settings: LanguageSettings
    seed: int
    start: str
    protected: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values, all but the encoder."""
        return {
            "format": FORMAT,
            "start": self.start,
            "weights": self.encoder.weights,
            "seed": self.seed,
            "settings": self.settings.to_json(),
            "protected": self.protected,
            "languages": {code: report.to_json() for code, report in self.reports.items()},
        }

    def save(self, folder: Path, form: SaveForm | None = None) -> None:
        """Write the encoder to ``folder``, and the rest beside it, to ``languages.json``.

        Without a ``form`` it is a delta where the encoder can be saved so, else it is whole.

        Raises:
            EncoderError: a delta of an encoder whose base is not known.
            StorageError: it could not be written, or ``folder`` holds something else.
        """
        record = self.to_json() | {"environment": describe_environment()}
        chosen = chosen_form(self.encoder, form)
        self.encoder.save(folder, form=chosen, records={RECORD_FILE: record})


def add_languages(
    encoder: GrowableEncoder,
    pairs: Mapping[str, SentencePairs],
    settings: LanguageSettings | None = None,
    *,
    extra: Mapping[str, SentencePairs] | None = None,
    protected: Sequence[str] = (),
    seed: int = 0,
    device: str | None = None,
    progress: bool = False,
) -> LanguageAddition:
    """Teach ``encoder`` languages that it has never seen; it is moved to ``device`` itself.

    Args:
        encoder: the encoder to start from, with its whole vocabulary.
        pairs: sentence pairs of each language.
        settings: how.
        extra: further pairs, all of which are trained on, such as training questions.
        protected: texts in languages that it knows; they and all English texts of the pairs keep
            their tokens and thereby their vectors.
        seed: which sentences are held out, which pairs are taken, and their order.
        device: cpu or cuda; by default cuda where there is one.
        progress: show a bar.

    Raises:
        SettingsError: the encoder knows a language already, or there is no such device.
        DataError: a language has fewer than 100 pairs.
        TrainingError: there is no new piece to train, or the loss is not a number.
    """
    settings = settings or LanguageSettings()
    place = choose_device(device)
    _check(encoder, pairs)
    with matrix_precision(place):
        start = encoder.to(place)
        material = _material(pairs, extra or {}, settings, seed)
        kept = {text: None for part in material.values() for text in part.train.english}
        kept |= dict.fromkeys(protected)
        new = learn_pieces(
            start.tokenizer,
            {code: part.train.other for code, part in material.items()},
            settings.vocabulary,
            protected=list(kept),
        )
        if not len(new):
            raise TrainingError(
                f"no new pieces were found for {', '.join(material)}: {start.name} has all of "
                f"scope {settings.scope!r}. Use scope 'all', or more pieces or pairs"
            )
        grown = with_vocabulary(start, new, _start_rows(start, new, material, settings), material)
        trained = _train(start, grown, new, material, settings, seed, progress)
        trained = _refine(start, trained, material, list(kept), settings, seed, progress)
        reports = {code: _report(part, start, trained, new) for code, part in material.items()}
    return LanguageAddition(
        trained, MappingProxyType(reports), settings, seed, start.name, len(kept)
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """The pairs of one language; the last ``extra`` ones of ``train`` were given as such."""

    train: SentencePairs
    held_out: SentencePairs
    extra: int


def check_languages(encoder: Encoder, codes: Iterable[str]) -> None:
    """Refuse languages that ``encoder`` knows.

    Raises:
        SettingsError: there is one, or no language at all.
    """
    wanted = list(codes)
    if not wanted:
        raise SettingsError("no language to add")
    known = sorted(encoder.languages.intersection(wanted))
    if known:
        raise SettingsError(
            f"{encoder.name} knows {', '.join(known)} already; name languages that it does not"
        )


def _check(encoder: GrowableEncoder, pairs: Mapping[str, SentencePairs]) -> None:
    check_languages(encoder, pairs)
    for code, own in pairs.items():
        if len(own) < FEWEST_PAIRS:
            raise DataError(
                f"language {code!r}: {len(own)} sentence pairs; at least {FEWEST_PAIRS} are "
                f"needed, and below {FEW_PAIRS} little can be learnt"
            )


def _material(
    pairs: Mapping[str, SentencePairs],
    extra: Mapping[str, SentencePairs],
    settings: LanguageSettings,
    seed: int,
) -> dict[str, _Part]:
    material = {}
    for code, own in pairs.items():
        source = settings.held_out_source
        sentences = sum(
            kind == KINDS[0] and source in (None, place)
            for kind, place in zip(own.kinds, own.sources, strict=True)
        )
        if sentences < 3:
            raise DataError(
                f"language {code!r}: {sentences} of the {len(own)} pairs are sentences"
                f"{f' from {source}' if source else ''}; some are needed to measure what was learnt"
            )
        count = min(settings.held_out, sentences // (2 if source else 3))
        rest, held = hold_out(own, count, seed, source=source)
        train = _capped(rest, settings, seed)
        more = drop_shared(extra[code], held) if code in extra else train.select(())
        material[code] = _Part(_joined(train, more), held, len(more))
    return material


def _capped(pairs: SentencePairs, settings: LanguageSettings, seed: int) -> SentencePairs:
    order = np.random.default_rng(seed).permutation(len(pairs))
    taken: dict[str, int] = {}
    chosen = []
    for number in order.tolist():
        kind = pairs.kinds[number]
        taken[kind] = taken.get(kind, 0) + 1
        if taken[kind] <= settings.caps.get(kind, 0) and settings.weights.get(kind, 0):
            chosen.append(number)
    return pairs.select(chosen)


def _joined(first: SentencePairs, second: SentencePairs) -> SentencePairs:
    return SentencePairs(
        first.language,
        first.english + second.english,
        first.other + second.other,
        first.sources + second.sources,
        first.kinds + second.kinds,
    )


def _start_rows(
    start: GrowableEncoder,
    new: NewPieces,
    material: Mapping[str, _Part],
    settings: LanguageSettings,
) -> torch.Tensor:
    if settings.start == "segments":
        return segment_rows(start, new)
    texts = ((part.train.english, part.train.other) for part in material.values())
    return aligned_rows(start, new, texts)


def _train(
    start: GrowableEncoder,
    grown: GrowableEncoder,
    new: NewPieces,
    material: Mapping[str, _Part],
    settings: LanguageSettings,
    seed: int,
    progress: bool,
) -> GrowableEncoder:
    if not settings.epochs:
        return grown
    lesson = _Lesson.of(start, grown, material, settings)
    compact = grown.compact(lesson.bank.token_ids)
    assert compact.tokenizer.rows is not None
    teaching = _Teaching(compact, lesson, settings, first=start.tokenizer.pieces)
    steps = settings.epochs * math.ceil(len(lesson) / settings.batch)
    if not progress:
        teaching.run(seed, steps, lambda done: None)
    else:
        with progress_bar("teaching", total=steps, unit="steps") as advance:
            teaching.run(seed, steps, advance)
    return grown.write_back(compact)


def _refine(
    start: GrowableEncoder,
    trained: GrowableEncoder,
    material: Mapping[str, _Part],
    kept: Sequence[str],
    settings: LanguageSettings,
    seed: int,
    progress: bool,
) -> GrowableEncoder:
    wanted = settings.refinement
    pairs = Translations(
        [text for part in material.values() for text in part.train.english],
        [text for part in material.values() for text in part.train.other],
        [
            settings.weights.get(kind, 1.0)
            for part in material.values()
            for kind in part.train.kinds
        ],
    )
    steps = wanted.epochs * math.ceil(len(pairs) / wanted.batch)
    shown = progress and steps > 0
    with progress_bar("refining", total=steps, unit="steps", shown=shown) as advance:
        return refine(start, trained, pairs, kept, wanted, seed=seed, advance=advance)


@dataclass(frozen=True)
class _Lesson:
    """All training pairs.

    ``bank`` are the distinct texts of the new languages. ``english`` and ``other`` (pairs,) hold
    rows of ``targets`` (English texts, dimension) and of the bank, ``weights`` (pairs,) what each
    counts in the loss.
    """

    bank: RaggedBatch
    targets: torch.Tensor
    english: torch.Tensor
    other: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def of(
        cls,
        start: GrowableEncoder,
        grown: GrowableEncoder,
        material: Mapping[str, _Part],
        settings: LanguageSettings,
    ) -> _Lesson:
        english, english_rows = distinct(
            text for part in material.values() for text in part.train.english
        )
        other, other_rows = distinct(
            text for part in material.values() for text in part.train.other
        )
        kinds = (kind for part in material.values() for kind in part.train.kinds)
        weights = [settings.weights.get(kind, 1.0) for kind in kinds]
        place = start.device
        return cls(
            bank=grown.tokenize(other).to(place),
            targets=torch.from_numpy(start.encode(english)).to(place),
            english=torch.from_numpy(english_rows).to(place),
            other=torch.from_numpy(other_rows).to(place),
            weights=torch.tensor(weights, dtype=torch.float32, device=place),
        )

    def __len__(self) -> int:
        return self.english.shape[0]


class _Teaching:
    """Trains, in place, those rows of a compact encoder's table that belong to new pieces."""

    def __init__(
        self, encoder: GrowableEncoder, lesson: _Lesson, settings: LanguageSettings, *, first: int
    ) -> None:
        self._encoder = encoder
        self._lesson = lesson
        self._settings = settings
        rows = encoder.tokenizer.rows
        assert rows is not None
        encoder.requires_grad_(False)
        # The new pieces have the highest ids, and a compact table keeps their order.
        self._split = int((rows < first).sum())
        table = encoder.embedding
        self._old = table[: self._split]
        self._new = torch.nn.Parameter(table[self._split :].clone())
        ids = lesson.bank.token_ids
        self._bank = RaggedBatch(torch.searchsorted(rows.to(ids.device), ids), lesson.bank.lengths)
        self._optimiser = torch.optim.Adam([self._new], fused=True)

    def run(self, seed: int, steps: int, advance: Callable[[int], None]) -> None:
        done = 0
        for epoch in range(self._settings.epochs):
            order = np.random.default_rng((seed, epoch)).permutation(len(self._lesson))
            pairs = torch.from_numpy(order).to(self._new.device)
            for chosen in torch.split(pairs, self._settings.batch):
                loss = self._step(chosen, done / steps)
                done += 1
                advance(1)
                if (done % _CHECK_EVERY == 0 or done == steps) and not math.isfinite(float(loss)):
                    raise TrainingError(
                        f"step {done} of {steps}: the loss is {float(loss)}. Lower the learning "
                        f"rate ({self._settings.learning_rate:g}) or look for texts that are broken"
                    )
        with torch.no_grad():
            self._encoder.embedding[self._split :] = self._new

    def _step(self, chosen: torch.Tensor, done: float) -> torch.Tensor:
        vectors = self._vectors(self._bank.select(self._lesson.other[chosen]))
        english = self._lesson.english[chosen]
        settings = self._settings
        loss = alignment_loss(
            vectors,
            self._lesson.targets[english],
            english,
            self._lesson.weights[chosen],
            temperature=settings.temperature,
            closeness=settings.closeness,
        )
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for group in self._optimiser.param_groups:
            group["lr"] = one_cycle(settings.learning_rate, settings.warm_up, done)
        self._optimiser.step()
        return loss.detach()

    def _vectors(self, batch: RaggedBatch) -> torch.Tensor:
        table = torch.cat([self._old, self._new])
        return self._encoder.vectors_with(table, batch)


def _report(
    part: _Part, start: GrowableEncoder, trained: GrowableEncoder, new: NewPieces
) -> LanguageReport:
    pairs = part.train
    sources: dict[str, int] = {}
    for source in pairs.sources:
        sources[source] = sources.get(source, 0) + 1
    ids = _token_ids(trained, pairs.other)
    first = trained.tokenizer.pieces - len(new)
    return LanguageReport(
        language=pairs.language,
        pieces=len(np.unique(ids[ids >= first])),
        pairs=MappingProxyType(dict(sorted(sources.items(), key=lambda item: -item[1]))),
        extra=part.extra,
        before=_measure(start, part.held_out),
        after=_measure(trained, part.held_out),
    )


def _measure(encoder: GrowableEncoder, pairs: SentencePairs) -> LanguageMeasure:
    tokens = _token_ids(encoder, pairs.other)
    inner = max(1, len(tokens))
    words = sum(map(len, IcuWords(pairs.language).words(pairs.other)))
    return LanguageMeasure(
        unknown=int((tokens == encoder.tokenizer.unknown_id).sum()) / inner,
        tokens_per_word=inner / max(1, words),
        translation=translation_retrieval(encoder, pairs),
    )


def _token_ids(encoder: GrowableEncoder, texts: Sequence[str]) -> np.ndarray:
    """Return the tokens of all texts, without the marks around each, shape (tokens,)."""
    flat = chain.from_iterable(encoder.tokenizer.segment(texts))
    return np.fromiter(flat, dtype=np.int64)
