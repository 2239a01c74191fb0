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
    "DevSettings",
    "Method",
    "Optimisation",
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
class Transfer:
    """Language knowledge transfer from the stage's start, frozen, to the student.

    A question without a translation into the documents' language yields no example.
    ``granularity`` says whether the student sees the gold document whole or the gold passage.
    """

    weights: TransferWeights
    granularity: Granularity = "document"


Method = WarmUp | Teacher | Transfer


@dataclass(frozen=True, slots=True)
class Optimisation:
    """Adam, and how a stage's learning rate falls.

    ``batch`` counts examples; ``batch_tokens``, where given, cuts a batch earlier, counting each
    distinct text once. The rate is halved at the ``halve_first``-th bad evaluation in a row and at
    every ``halve_every``-th after it, never below ``rate_floor`` times the initial rate.
    """

    epochs: int
    learning_rate: float
    batch: int = 16
    batch_tokens: int | None = None
    adam_epsilon: float = 1e-7
    halve_first: int = 1
    halve_every: int = 1
    rate_floor: float = 0.0

    def __post_init__(self) -> None:
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
class Recipe:
    """A run, in full but for its seed."""

    name: str
    corpus: str
    stages: tuple[Stage, ...]
    encoder: str = "muse"
    languages: tuple[str, ...] | None = None
    split_by: Literal["question", "document"] = "question"
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def __post_init__(self) -> None:
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
    {"warm-up": WarmUp, "teacher": Teacher, "transfer": Transfer}
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
    if isinstance(value, WarmUp | Teacher | Transfer):
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
