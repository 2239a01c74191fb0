"""Recipes: what a run does, as numbers and words.

A recipe is a TOML file: a corpus, an encoder, how dev and test are measured, and stages. Whatever
differs between corpora stands there; the code has no case for any of them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from clrelkt.errors import SettingsError, UnknownNameError
from clrelkt.evaluation.retrieval import EvaluationSettings
from clrelkt.mining import BM25Mining, DenseMining, Granularity
from clrelkt.objectives import TransferWeights

__all__ = [
    "BASELINE",
    "ZERO_SHOT",
    "AnsweredQuestions",
    "Contrastive",
    "DevSettings",
    "Distribution",
    "Measurement",
    "Method",
    "Optimisation",
    "ParallelPairs",
    "Precision",
    "Recipe",
    "Stage",
    "Teacher",
    "Transfer",
    "WarmUp",
    "known_recipes",
    "load_recipe",
    "recipe_from_json",
]

ZERO_SHOT = "zero-shot"
"""What results call the encoder before any stage."""
BASELINE = "bm25"
"""What results call BM25 with the English question."""

_RESERVED = (BASELINE, ZERO_SHOT, "test")
_STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

Settings = TypeVar("Settings")

Precision = Literal["float32", "bfloat16"]
"""What a training step multiplies matrices in; parameters and losses are kept in float32."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Triplets with BM25 negatives, mined once.

    For the first ``bm25_epochs`` epochs a triplet's negative is the mined one; from then on it is
    another passage or document of the pool, drawn anew each epoch, that is no gold.
    """

    margin: float
    negatives: BM25Mining = field(default_factory=BM25Mining)
    distance: Literal["cosine", "euclidean"] = "cosine"
    bm25_epochs: int = 3

    def __post_init__(self) -> None:
        if not self.margin > 0:
            raise SettingsError(f"margin {self.margin}: it must be above 0")
        if self.bm25_epochs < 0:
            raise SettingsError(f"bm25_epochs {self.bm25_epochs}: it may not be negative")


@dataclass(frozen=True, slots=True)
class Teacher:
    """Triplets whose negatives the current encoder mines at the start of every epoch."""

    negatives: DenseMining

    @property
    def margin(self) -> float:
        """The triplet's margin, which also bounds what counts as semi-hard."""
        return self.negatives.margin

    @property
    def distance(self) -> Literal["cosine", "euclidean"]:
        """The triplet's distance, which is also the one mined with."""
        return self.negatives.distance


@dataclass(frozen=True, slots=True)
class Distribution:
    """A fourth transfer term: the teacher's distribution over all candidates (KL divergence).

    The teacher scores them for the English question, the student for the translated one; both
    scores are cosines with the teacher's vectors of the candidates, divided by ``temperature``.
    """

    weight: float
    temperature: float = 0.05

    def __post_init__(self) -> None:
        _check_weights(weight=self.weight)
        _check_temperature(self.temperature)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Language knowledge transfer from a frozen teacher to the student.

    The teacher is the stage's start, or the encoder that ``teacher`` names, whose vectors must be
    as long as the student's. A question without a translation into the documents' language yields
    no example. ``granularity`` says whether the student sees the gold document whole or the gold
    passage.
    """

    weights: TransferWeights
    granularity: Granularity = "document"
    distribution: Distribution | None = None
    teacher: str | None = None


@dataclass(frozen=True, slots=True)
class ParallelPairs:
    """Sentence pairs that keep a translation beside its English sentence (in-batch softmax).

    ``source`` is a path that ``find_pairs`` reads; at most ``limit`` pairs of each language and of
    ``kinds`` are taken, after ``held_out`` sentences of each language are set aside for tests.
    ``share`` is the number of pairs for every question of a batch.
    """

    languages: tuple[str, ...]
    weight: float
    source: str = "parallel"
    kinds: tuple[str, ...] = ("sentences",)
    limit: int = 20_000
    held_out: int = 2_000
    share: float = 1.0

    def __post_init__(self) -> None:
        _check_weights(weight=self.weight, share=self.share)
        if self.limit < 1 or self.held_out < 0:
            raise SettingsError(
                f"limit {self.limit} and held_out {self.held_out}: at least 1 and 0 expected"
            )


@dataclass(frozen=True, slots=True)
class AnsweredQuestions:
    """More questions with the passage that answers each (``read_answer_pairs`` reads ``source``).

    Their negatives are the batch's other passages of ``source`` and all passages of the corpus
    that the stage trains on. ``share`` is their number for every question of a batch.

    Each question is there once more in ``switched`` languages, drawn among those of the stage and
    its ``pairs``: of its words that the pairs translate the share ``switched_words`` is then in
    that language.
    """

    source: str
    weight: float
    share: float = 0.25
    switched: int = 0
    switched_words: float = 0.7

    def __post_init__(self) -> None:
        _check_weights(weight=self.weight, share=self.share)
        if self.switched < 0 or not 0 < self.switched_words <= 1:
            raise SettingsError(
                f"switched {self.switched}, switched_words {self.switched_words}: at least 0, and "
                "above 0 up to 1 expected"
            )


@dataclass(frozen=True, slots=True)
class Contrastive:
    """A weighted sum of softmax losses over all passages that training questions are about.

    Each of the following is the weight of a term; 0 leaves it out:

    - ``questions``: a question finds its passage. ``score`` says what the softmax is over:
      passages, or documents scored by their best passage. With ``directions`` both, a passage also
      finds its question among the batch's. A negative whose start cosine with the question exceeds
      ``false_negatives`` times the gold passage's is left out of the softmax.
    - ``whole_documents``: a question finds its document, each encoded as one text.
    - ``translated``: a question finds its passage among passages in languages drawn at random, and
      these find their English versions.
    - ``sentences``: each sentence of the translated passages is a question too, for its passage
      and, where whole documents are scored, half as much for its document; ``sentence_share`` of
      them for every question of a batch.
    - ``english``: a question finds its English version.
    - ``anchor``: passages (and whole documents, if they are scored) stay near the vectors that
      they had at the start: 1 - cosine.
    - ``pairs`` and ``answered``: more texts, see there.

    ``temperature`` divides every cosine. ``closeness`` is what 1 - cosine counts beside the softmax
    of ``english`` and of ``pairs``: a softmax is content once a translation is nearer than all
    others, this pulls on, towards the English vector, which it does not move.
    """

    questions: float = 1.0
    whole_documents: float = 0.0
    translated: float = 0.0
    sentences: float = 0.0
    sentence_share: float = 1.0
    english: float = 0.0
    anchor: float = 0.0
    pairs: tuple[ParallelPairs, ...] | None = None
    answered: tuple[AnsweredQuestions, ...] | None = None
    temperature: float = 0.05
    closeness: float = 0.0
    score: Literal["passage", "best-passage"] = "passage"
    directions: Literal["forward", "both"] = "forward"
    false_negatives: float | None = None

    def __post_init__(self) -> None:
        _check_weights(
            questions=self.questions,
            whole_documents=self.whole_documents,
            translated=self.translated,
            sentences=self.sentences,
            sentence_share=self.sentence_share,
            english=self.english,
            anchor=self.anchor,
            closeness=self.closeness,
        )
        _check_temperature(self.temperature)
        if self.false_negatives is not None and not self.false_negatives > 0:
            raise SettingsError(f"false_negatives {self.false_negatives}: it must be above 0")
        terms = (self.questions, self.whole_documents, self.translated, self.sentences)
        if not any((*terms, self.english, self.pairs, self.answered)):
            raise SettingsError("every term has weight 0: nothing would be learned")


def _check_weights(**weights: float) -> None:
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise SettingsError(f"{name} {weight}: a finite number, 0 or above, expected")


def _check_temperature(temperature: float) -> None:
    if not (math.isfinite(temperature) and temperature > 0):
        raise SettingsError(f"temperature {temperature}: a finite number above 0 expected")


Method = WarmUp | Teacher | Transfer | Contrastive


@dataclass(frozen=True, slots=True)
class Optimisation:
    """Adam, and how a stage's learning rate falls.

    ``batch`` counts examples; ``batch_tokens``, where given, cuts a batch earlier, counting each
    distinct text once. With ``schedule`` "halve" the rate is halved at the ``halve_first``-th bad
    evaluation in a row and at every ``halve_every``-th after it, never below ``rate_floor`` times
    the initial rate. With "cosine" it rises over the first tenth of all steps and then falls to 0
    along half a cosine. ``average`` is the decay of a moving average of the parameters, which then
    is what is measured and kept (0: none). ``token_dropout`` is the share of tokens, the marks of
    a text's ends apart, that a training step does not see. With ``precision`` "bfloat16" a training
    step's matrix products are computed in it; parameters, losses and measurements stay in float32.
    """

    epochs: int
    learning_rate: float
    batch: int = 16
    batch_tokens: int | None = None
    adam_epsilon: float = 1e-7
    halve_first: int = 1
    halve_every: int = 1
    rate_floor: float = 0.0
    schedule: Literal["halve", "cosine"] = "halve"
    adam_beta2: float = 0.999
    average: float = 0.0
    token_dropout: float = 0.0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if not (0 <= self.average < 1 and 0 <= self.token_dropout < 1 and 0 < self.adam_beta2 < 1):
            raise SettingsError(
                f"average {self.average}, token_dropout {self.token_dropout} and adam_beta2 "
                f"{self.adam_beta2}: all must be below 1, none negative, adam_beta2 above 0"
            )
        if min(self.epochs, self.batch, self.halve_first, self.halve_every) < 1:
            raise SettingsError(
                f"epochs {self.epochs}, batch {self.batch}, halve_first {self.halve_first} and "
                f"halve_every {self.halve_every}: all must be at least 1"
            )
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise SettingsError(f"batch_tokens {self.batch_tokens}: it must be at least 1")
        if not self.learning_rate > 0 or not self.adam_epsilon > 0:
            raise SettingsError(
                f"learning_rate {self.learning_rate} and adam_epsilon {self.adam_epsilon}: "
                "both must be above 0"
            )
        if not 0 <= self.rate_floor <= 1:
            raise SettingsError(f"rate_floor {self.rate_floor}: it must lie between 0 and 1")


@dataclass(frozen=True, slots=True)
class DevSettings:
    """When a stage is measured on dev, when it stops, and what it keeps.

    One of ``every_steps`` and ``times_per_epoch`` is given. An evaluation that does not exceed the
    best so far is bad; after ``patience`` bad ones in a row the stage ends, but not before
    ``first_stop_epoch`` (the first epoch is 0). ``keep`` says whether the encoder that the stage
    started from may also be what it keeps.
    """

    patience: int
    every_steps: int | None = None
    times_per_epoch: int | None = None
    first_stop_epoch: int = 0
    keep: Literal["best", "best-or-start"] = "best"

    def __post_init__(self) -> None:
        if (self.every_steps is None) == (self.times_per_epoch is None):
            raise SettingsError(
                f"every_steps {self.every_steps} and times_per_epoch {self.times_per_epoch}: "
                "exactly one of the two must be given"
            )
        given = self.times_per_epoch if self.every_steps is None else self.every_steps
        if given is None or given < 1 or self.patience < 1:
            raise SettingsError(
                f"patience {self.patience} and {given} evaluations: both must be at least 1"
            )
        if self.first_stop_epoch < 0:
            raise SettingsError(
                f"first_stop_epoch {self.first_stop_epoch}: it may not be negative (the first "
                "epoch is 0)"
            )


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: where it starts, which languages it trains on, its method and settings.

    ``name`` also names the folder of the stage's encoder. ``start`` names an earlier stage; None
    is the recipe's encoder. ``languages`` None are all of the recipe's.
    """

    name: str
    method: Method
    optimisation: Optimisation
    dev: DevSettings
    start: str | None = None
    languages: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not _STAGE_NAME.fullmatch(self.name):
            raise SettingsError(
                f"name {self.name!r}: Latin letters, digits, '-', '_' and '.' expected, a letter "
                "or digit first"
            )
        if self.name in _RESERVED:
            raise SettingsError(
                f"name {self.name!r}: a run's files call something else so; choose another"
            )


@dataclass(frozen=True, slots=True)
class Measurement:
    """Something that is measured after training, beside the test questions themselves.

    Before training and after every stage, ``kind`` is measured:

    - ``retrieval``: the questions of ``corpus`` (None: the recipe's) as ``evaluation`` says;
    - ``mixed-pool``: the same questions against passages of all languages;
    - ``sentences``: the sentences of the gold passage;
    - ``translations``: translations among ``held_out`` sentences of ``source``, which must be kept
      out of training by the same number.

    Only ``split`` of the corpus is asked. ``leave_out`` names documents, by id or title, that are
    taken from the corpus, such as those whose text was trained on. ``languages`` None are all of
    the corpus's, or of the recipe's for translations.
    """

    name: str
    kind: Literal["retrieval", "mixed-pool", "sentences", "translations"] = "retrieval"
    corpus: str | None = None
    split: Literal["dev", "test", "all"] = "test"
    languages: tuple[str, ...] | None = None
    leave_out: tuple[str, ...] | None = None
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    source: str = "parallel"
    held_out: int = 2_000

    def __post_init__(self) -> None:
        if not self.name:
            raise SettingsError("a measurement needs a name")
        if self.held_out < 1:
            raise SettingsError(f"held_out {self.held_out}: at least 1 expected")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A run, in full but for its seed."""

    name: str
    corpus: str
    stages: tuple[Stage, ...]
    encoder: str = "muse"
    languages: tuple[str, ...] | None = None
    split_by: Literal["question", "document"] = "question"
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    measurements: tuple[Measurement, ...] | None = None

    def __post_init__(self) -> None:
        names = [measurement.name for measurement in self.measurements or ()]
        if len(set(names)) < len(names):
            raise SettingsError(f"recipe {self.name!r}: two measurements have the same name")
        seen: list[str] = []
        for stage in self.stages:
            if stage.name in seen:
                raise SettingsError(f"recipe {self.name!r}: two stages are called {stage.name!r}")
            if stage.start is not None and stage.start not in seen:
                raise SettingsError(
                    f"recipe {self.name!r}: stage {stage.name!r} starts from {stage.start!r}, "
                    f"which is no earlier stage ({', '.join(seen) or 'there is none'})"
                )
            strange = set(stage.languages or ()) - set(self.languages or stage.languages or ())
            if strange:
                raise SettingsError(
                    f"recipe {self.name!r}: stage {stage.name!r} trains on "
                    f"{' '.join(sorted(strange))}, but the recipe's languages are "
                    f"{' '.join(self.languages or ())}"
                )
            seen.append(stage.name)
        if not seen:
            raise SettingsError(f"recipe {self.name!r} has no stages")

    def stage(self, name: str) -> Stage:
        """Return a stage by name.

        Raises:
            UnknownNameError: there is none of that name.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        known = ", ".join(stage.name for stage in self.stages)
        raise UnknownNameError(f"recipe {self.name!r} has no stage {name!r}; it has {known}")

    def up_to(self, name: str) -> Recipe:
        """Return the recipe with ``name`` and the stages that it builds on, alone."""
        wanted = self.stage(name)
        chain = [wanted]
        while chain[0].start is not None:
            chain.insert(0, self.stage(chain[0].start))
        return dataclasses.replace(self, stages=tuple(chain))

    def stage_languages(self, stage: Stage, corpus_languages: tuple[str, ...]) -> tuple[str, ...]:
        """Return the languages that ``stage`` trains on."""
        return stage.languages or self.languages or corpus_languages

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as plain values; ``recipe_from_json`` reads them."""
        return _plain_fields(self)


_METHODS: Mapping[str, type[Method]] = types.MappingProxyType(
    {"warm-up": WarmUp, "teacher": Teacher, "transfer": Transfer, "contrastive": Contrastive}
)


def known_recipes() -> dict[str, Path]:
    """Return the recipes that come with clrelkt, by name."""
    folder = Path(__file__).parent.parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Return a recipe by name, or from a TOML file (or a JSON file with the same keys).

    Raises:
        UnknownNameError: neither a known name nor a file.
        SettingsError: the file cannot be read, or a value in it cannot be.
    """
    path = known_recipes().get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        raise UnknownNameError(
            f"no recipe {str(name_or_path)!r}: it is neither a file nor one of "
            f"{', '.join(known_recipes())}"
        )
    read = json.loads if path.suffix == ".json" else tomllib.loads
    try:
        table = read(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise SettingsError(f"{path}: not a {kind} file ({error})") from error
    return recipe_from_json(table, str(path))


def recipe_from_json(table: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Build a recipe from plain values; ``where`` is what an error message calls them.

    Raises:
        SettingsError: a key that is not known or missing, or a value that cannot be.
    """
    return _build(Recipe, table, where)


def _plain(value: Any) -> Any:
    if isinstance(value, WarmUp | Teacher | Transfer | Contrastive):
        kind = next(name for name, method in _METHODS.items() if isinstance(value, method))
        return {"kind": kind} | _plain_fields(value)
    if dataclasses.is_dataclass(value):
        return _plain_fields(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _plain_fields(value: Any) -> dict[str, Any]:
    named = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    return {name: _plain(item) for name, item in named.items() if item is not None}


def _build(kind: type[Settings], table: Any, where: str) -> Settings:
    if not isinstance(table, Mapping):
        raise SettingsError(f"{where}: a table expected, got {table!r}")
    hints = typing.get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise SettingsError(f"{where}: {key!r} is not known here; known: {', '.join(fields)}")
    for name, item in fields.items():
        required = (
            item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        )
        if required and name not in table:
            raise SettingsError(f"{where}: {name!r} is missing")
    values = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    try:
        return kind(**values)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    if hint == Method:
        return _method(value, where)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)  # type: ignore[arg-type]
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in options:
            raise SettingsError(f"{where}: got {value!r}, expected one of {', '.join(options)}")
        return value
    if origin is tuple:
        if not isinstance(value, list) or not value:
            raise SettingsError(f"{where}: a list with at least one entry expected, got {value!r}")
        return tuple(
            _convert(options[0], item, f"{where}[{place}]") for place, item in enumerate(value)
        )
    return _convert_plain(hint, value, where)


def _convert_plain(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or isinstance(value, bool):
        raise SettingsError(f"{where}: got {value!r}, expected {hint.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{where}: got {value!r}, expected a finite number")
    return value


def _method(value: Any, where: str) -> Method:
    if not isinstance(value, Mapping) or value.get("kind") not in _METHODS:
        raise SettingsError(
            f"{where}: a table whose 'kind' is one of {', '.join(_METHODS)} expected, got {value!r}"
        )
    settings = {key: item for key, item in value.items() if key != "kind"}
    return _build(_METHODS[value["kind"]], settings, where)
