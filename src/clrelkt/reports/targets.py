"""Targets beside what was measured: a spec that people edit, and the rows that follow from it.

The spec is a TOML file with a table ``[[targets]]`` a row. Records are looked for in its folder.
What was measured is computed from the single seeds' values, so that a mean over several values has
an interval of its own.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any, Literal, get_args

from clrelkt.errors import DataError
from clrelkt.evaluation.seeds import over_seeds
from clrelkt.reports.records import Target, Targets, checked, number, read_json, text

__all__ = ["TargetSpec", "build_targets", "read_targets_spec"]

Kind = Literal["reproduction", "languages"]
"""What wrote a record: ``clrelkt reproduce``, or ``clrelkt languages add``."""

_TABLE = "targets"
_SHOWN = 12
_LANGUAGE_STAGES = ("before", "after")


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """A number that is to be reached or exceeded, and where the measured one stands.

    ``record`` is the name of a file in the spec's folder. In a reproduction, ``test`` names a
    measurement and ``values`` keys of it; in a record of added languages, ``values`` are language
    codes, each of which stands for the share of its held-out sentences whose English translation
    was found. Of several values the mean counts, or the smallest with ``least``, in each seed by
    itself. ``stage`` None is the last one; of added languages the stages are ``before`` and
    ``after``. With ``over`` the row is the ratio to that stage, again seed by seed. ``command`` is
    for a record that does not name its own.
    """

    row: str
    target: float
    record: str
    values: tuple[str, ...]
    kind: Kind = "reproduction"
    test: str | None = None
    stage: str | None = None
    over: str | None = None
    least: bool = False
    command: str | None = None

    def __post_init__(self) -> None:
        if not self.row:
            raise ValueError("'row' is empty")
        if not self.record or Path(self.record).name != self.record:
            raise ValueError(f"'record' is {self.record!r}, expected the name of a file beside it")
        if not self.values:
            raise ValueError("'values' is empty")
        if self.kind not in get_args(Kind):
            raise ValueError(f"'kind' is {self.kind!r}, expected {' or '.join(get_args(Kind))}")
        if (self.test is None) == (self.kind == "reproduction"):
            needed = (
                "a reproduction needs one" if self.test is None else "added languages have none"
            )
            raise ValueError(f"'test' is {self.test!r}, but {needed}")


@dataclass(frozen=True, slots=True)
class _Measured:
    """What a record says: every seed's values by stage, and how they came about."""

    per_seed: Mapping[str, Sequence[Mapping[str, float]]]
    last: str
    command: str | None
    commit: str
    hardware: str


def read_targets_spec(path: Path) -> tuple[TargetSpec, ...]:
    """Read the rows of a spec.

    Raises:
        DataError: it cannot be read, has no rows, or a row has a fault.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path}: is not TOML: {error}") from error
    rows = table.get(_TABLE)
    if set(table) != {_TABLE} or not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: tables [[{_TABLE}]] expected, one a row, and nothing else")
    specs = [
        checked(partial(_spec, row), _place(path, row, place), "target")
        for place, row in enumerate(rows)
    ]
    names = [spec.row for spec in specs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: row {twice!r} is there twice; rename one of them")
    return tuple(specs)


def build_targets(path: Path) -> Targets:
    """Compute every row of the spec ``path`` from the records beside it.

    Intervals are Student's over seeds, at 95 %; a record of one run gives none.

    Raises:
        DataError: the spec has a fault, or a record, test, stage or value is missing.
    """
    read: dict[str, Any] = {}
    rows = []
    for spec in read_targets_spec(path):
        file = path.parent / spec.record
        place = f"{path}: row {spec.row!r}: {file}"
        if spec.record not in read:
            read[spec.record] = _read_record(file, f"{path}: row {spec.row!r}")
        record = read[spec.record]
        rows.append(checked(partial(_row, spec, record), place, f"record of {spec.kind}"))
    return Targets(name=path.stem, rows=tuple(rows))


def _place(path: Path, row: Any, place: int) -> str:
    named = row.get("row") if isinstance(row, Mapping) else None
    return f"{path}: row {named!r}" if isinstance(named, str) and named else f"{path}: row {place}"


def _spec(row: Mapping[str, Any]) -> TargetSpec:
    known = {field.name for field in dataclasses.fields(TargetSpec)}
    strange = sorted(set(row) - known)
    if strange:
        raise ValueError(f"{strange[0]!r} is not known here; known: {', '.join(sorted(known))}")
    values, least = row["values"], row.get("least", False)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"'values' is {values!r:.40}, expected a list of texts")
    if not isinstance(least, bool):
        raise TypeError(f"'least' is {least!r:.40}, expected true or false")
    given: dict[str, Any] = {
        key: text(row, key)
        for key in ("row", "record", "kind", "test", "stage", "over", "command")
        if key in row or key in ("row", "record")
    }
    target = number(row["target"], "target")
    return TargetSpec(target=target, values=tuple(values), least=least, **given)


def _read_record(file: Path, place: str) -> Any:
    try:
        return read_json(file)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _row(spec: TargetSpec, record: Mapping[str, Any]) -> Target:
    found = _READERS[spec.kind](spec, record)
    command = found.command or spec.command
    if command is None:
        raise ValueError("it does not say its command; name it in the spec, as 'command'")
    measured = _combined(spec, found, spec.stage or found.last)
    if spec.over is not None:
        base = _combined(spec, found, spec.over)
        if len(base) != len(measured):
            raise ValueError(f"{spec.over!r} has {len(base)} seeds, the stage {len(measured)}")
        if not all(base):
            raise ValueError(f"{spec.over!r} is 0 in one seed: there is no ratio to it")
        measured = [value / start for value, start in zip(measured, base, strict=True)]
    estimate = over_seeds(measured)
    interval = None
    if estimate.low is not None and estimate.high is not None:
        interval = (estimate.low, estimate.high)
    return Target(
        row=spec.row,
        target=spec.target,
        measured=estimate.mean,
        interval=interval,
        command=command,
        commit=found.commit,
        hardware=found.hardware,
    )


def _combined(spec: TargetSpec, found: _Measured, stage: str) -> list[float]:
    """Return one value a seed."""
    seeds = _named(found.per_seed, stage, "stage")
    if not seeds:
        raise ValueError(f"stage {stage!r} has no seeds")
    combine: Callable[[list[float]], float] = min if spec.least else fmean
    return [
        combine([number(_named(seed, value, "value"), value) for value in spec.values])
        for seed in seeds
    ]


def _named(table: Mapping[str, Any], name: str, kind: str) -> Any:
    if name not in table:
        shown = ", ".join(list(table)[:_SHOWN]) + (", ..." if len(table) > _SHOWN else "")
        raise ValueError(f"no {kind} {name!r}; there are {shown or 'none'}")
    return table[name]


def _from_reproduction(spec: TargetSpec, record: Mapping[str, Any]) -> _Measured:
    by_stage = _named(record.get("tests", {}), spec.test or "", "test")
    per_seed = {stage: row["per_seed"] for stage, row in by_stage.items()}
    return _measured(record, per_seed, list(record["stages"])[-1])


def _from_languages(spec: TargetSpec, record: Mapping[str, Any]) -> _Measured:
    reports = record["languages"]
    per_seed = {
        stage: [
            {
                code: report[stage]["translation"]["to_english_hit_rate@1"]
                for code, report in reports.items()
            }
        ]
        for stage in _LANGUAGE_STAGES
    }
    return _measured(record, per_seed, _LANGUAGE_STAGES[-1])


def _measured(
    record: Mapping[str, Any], per_seed: Mapping[str, Sequence[Mapping[str, float]]], last: str
) -> _Measured:
    return _Measured(
        per_seed=per_seed,
        last=last,
        command=text(record, "command") if "command" in record else None,
        commit=str(record["environment"]["commit"] or ""),
        hardware=text(record["environment"], "hardware"),
    )


_READERS: Mapping[Kind, Callable[[TargetSpec, Mapping[str, Any]], _Measured]] = MappingProxyType(
    {"reproduction": _from_reproduction, "languages": _from_languages}
)
