"""Records of what was measured, read from JSON: reproductions, targets beside them, speed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from clrelkt.errors import DataError
from clrelkt.evaluation.seeds import Estimate, SeedSummary
from clrelkt.reports.measured import MeasuredTable, find_tables

__all__ = [
    "Measured",
    "Performance",
    "PerformanceRow",
    "Record",
    "ReproductionRecord",
    "Target",
    "Targets",
    "UnknownRecord",
    "checked",
    "find_records",
    "number",
    "read_json",
    "read_record",
    "text",
]

Read = TypeVar("Read")

TestSummary = Mapping[str, Mapping[str, Estimate]]
"""What a further test says of each stage, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproductionRecord:
    """What ``clrelkt reproduce --record`` wrote, as far as tables need it.

    ``tests`` holds further measurements of the same encoders, by test, stage and name.
    """

    name: str
    command: str
    corpus: str
    document_score: str
    pool: str
    weights: str
    seeds: tuple[int, ...]
    hardware: str
    commit: str
    stages: Mapping[str, SeedSummary]
    tests: Mapping[str, TestSummary]

    def to_json(self) -> dict[str, Any]:
        """Return the labels and all estimates, without the single seeds' values."""
        return {
            "kind": "reproduction",
            "name": self.name,
            "command": self.command,
            "corpus": self.corpus,
            "pool": self.pool,
            "document_score": self.document_score,
            "weights": self.weights,
            "seeds": list(self.seeds),
            "hardware": self.hardware,
            "commit": self.commit,
            "stages": {stage: summary.to_json() for stage, summary in self.stages.items()},
            "tests": {
                test: {
                    stage: {name: estimate.to_json() for name, estimate in row.items()}
                    for stage, row in by_stage.items()
                }
                for test, by_stage in self.tests.items()
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What was to be reached, and what was: ``interval`` is a low and a high end, or a text."""

    row: str
    target: float | str
    measured: float
    interval: tuple[float, float] | str | None
    command: str
    commit: str
    hardware: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        interval = list(self.interval) if isinstance(self.interval, tuple) else self.interval
        return {name: getattr(self, name) for name in self.__slots__} | {"interval": interval}


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """A list of targets."""

    name: str
    rows: tuple[Target, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the name and the rows."""
        return {"kind": "targets", "name": self.name, "rows": [row.to_json() for row in self.rows]}


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceRow:
    """How fast ours is, ``against`` a peer or a limit on the same work, as a benchmark wrote it.

    ``ratio`` was to be at least ``target``, and went from ``spread[0]`` to ``spread[1]`` in the
    rounds. ``ours`` and ``theirs`` are in ``unit``, ``peak_memory`` in bytes, None where it was not
    measured.
    """

    work: str
    against: str
    target: float
    ratio: float
    spread: tuple[float, float]
    ours: float
    theirs: float
    unit: str
    peak_memory: float | None
    command: str
    commit: str
    hardware: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "spread": list(self.spread)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """A list of such rows."""

    name: str
    rows: tuple[PerformanceRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the name and the rows."""
        rows = [row.to_json() for row in self.rows]
        return {"kind": "performance", "name": self.name, "rows": rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Any other measurement, by the names that its record has for it.

    Such a record says its ``kind``, ``command`` and ``environment``; the rest is tables.
    """

    name: str
    kind: str
    command: str
    commit: str
    hardware: str
    versions: Mapping[str, str | None]
    tables: tuple[MeasuredTable, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the labels and the rows of all tables."""
        return {
            "kind": self.kind,
            "name": self.name,
            "command": self.command,
            "commit": self.commit,
            "hardware": self.hardware,
            "versions": dict(self.versions),
            "tables": [table.to_json() for table in self.tables],
        }


@dataclass(frozen=True, slots=True)
class UnknownRecord:
    """A JSON file that is none of these."""

    path: Path


Record = ReproductionRecord | Targets | Performance | Measured


def find_records(paths: Sequence[Path]) -> tuple[Record, ...]:
    """Read files, and the ``*.json`` files of folders, in the order given and by name.

    Files of another kind are passed over in a folder that has records too.

    Raises:
        DataError: a file that cannot be read, has faults or is of another kind; a folder without
            records.
    """
    found: list[Record] = []
    for path in paths:
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        read = [read_record(file) for file in files]
        known = [record for record in read if not isinstance(record, UnknownRecord)]
        if not known:
            raise DataError(
                f"{path}: {'no record here' if path.is_dir() else 'is not a record'}; expected "
                "what clrelkt reproduce --record writes, a list of targets, rows of benchmarks, or "
                "a record that says its kind"
            )
        found += known
    return tuple(found)


def read_record(path: Path) -> Record | UnknownRecord:
    """Read one file.

    Raises:
        DataError: it cannot be read, or has faults.
    """
    value = read_json(path)
    rows_of_speed = value if isinstance(value, list) else [value]
    if any(isinstance(row, dict) and "against" in row for row in rows_of_speed):
        found = [
            checked(partial(_performance_row, row), f"{path}: row {place}", "row")
            for place, row in enumerate(rows_of_speed)
        ]
        return Performance(name=path.stem, rows=tuple(found))
    if isinstance(value, list):
        rows = [
            checked(partial(_target, row), f"{path}: row {place}", "target")
            for place, row in enumerate(value)
        ]
        return Targets(name=path.stem, rows=tuple(rows))
    if isinstance(value, dict) and "stages" in value:
        return checked(partial(_reproduction, path.stem, value), str(path), "reproduction")
    if isinstance(value, dict) and "kind" in value:
        return checked(partial(_measured, path.stem, value), str(path), "record")
    return UnknownRecord(path)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        DataError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON: {error}") from error


def checked(read: Callable[[], Read], place: str, kind: str) -> Read:
    """Return what ``read`` returns; what it finds missing or wrong is told as a fault at ``place``.

    Raises:
        DataError: a key is missing, or a value does not fit.
    """
    try:
        return read()
    except KeyError as error:
        raise DataError(f"{place}: this {kind} has no {error.args[0]!r}") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{place}: this {kind} has a value that does not fit: {error}") from error


def _target(row: Mapping[str, Any]) -> Target:
    interval = row["interval"]
    if isinstance(interval, list):
        low, high = interval
        interval = (number(low, "interval"), number(high, "interval"))
    elif interval is not None and not isinstance(interval, str):
        raise TypeError(f"'interval' is {interval!r}, expected [low, high], text or null")
    target = row["target"]
    return Target(
        row=text(row, "row"),
        target=target if isinstance(target, str) else number(target, "target"),
        measured=number(row["measured"], "measured"),
        interval=interval,
        command=text(row, "command"),
        commit=text(row, "commit"),
        hardware=text(row, "hardware"),
    )


def _performance_row(row: Mapping[str, Any]) -> PerformanceRow:
    low, high = row["spread"]
    memory = row["peak_memory"]
    return PerformanceRow(
        work=text(row, "work"),
        against=text(row, "against"),
        target=number(row["target"], "target"),
        ratio=number(row["ratio"], "ratio"),
        spread=(number(low, "spread"), number(high, "spread")),
        ours=number(row["ours"], "ours"),
        theirs=number(row["theirs"], "theirs"),
        unit=text(row, "unit"),
        peak_memory=None if memory is None else number(memory, "peak_memory"),
        command=text(row, "command"),
        commit=text(row, "commit"),
        hardware=text(row, "hardware"),
    )


def _reproduction(name: str, record: Mapping[str, Any]) -> ReproductionRecord:
    stages = {
        stage: SeedSummary.from_json(row["summary"]) for stage, row in _items(record, "stages")
    }
    if not stages:
        raise ValueError("'stages' is empty")
    first = next(iter(record["stages"].values()))["per_seed"][0]
    tests = {
        test: MappingProxyType(
            {
                stage: MappingProxyType(
                    {key: Estimate.from_json(value) for key, value in _items(row, "summary")}
                )
                for stage, row in by_stage.items()
            }
        )
        for test, by_stage in record.get("tests", {}).items()
    }
    return ReproductionRecord(
        name=name,
        command=text(record, "command"),
        corpus=text(record, "corpus"),
        document_score=text(first, "document_score"),
        pool=text(first, "pool"),
        weights=text(record, "weights"),
        seeds=tuple(int(seed) for seed in record["seeds"]),
        hardware=text(record["environment"], "hardware"),
        commit=str(record["environment"]["commit"] or ""),
        stages=MappingProxyType(stages),
        tests=MappingProxyType(tests),
    )


def _measured(name: str, record: Mapping[str, Any]) -> Measured:
    environment = record["environment"]
    versions = dict(_items(environment, "packages"))
    return Measured(
        name=name,
        kind=text(record, "kind"),
        command=text(record, "command"),
        commit=str(environment["commit"] or ""),
        hardware=text(environment, "hardware"),
        versions=MappingProxyType({"python": text(environment, "python")} | versions),
        tables=find_tables(record),
    )


def _items(record: Mapping[str, Any], key: str) -> Any:
    value = record[key]
    if not isinstance(value, dict):
        raise TypeError(f"{key!r} is {value!r:.40}, expected an object")
    return value.items()


def text(record: Mapping[str, Any], key: str) -> str:
    """Return a text of a record.

    Raises:
        KeyError, TypeError: it is missing, or no text.
    """
    value = record[key]
    if not isinstance(value, str):
        raise TypeError(f"{key!r} is {value!r:.40}, expected text")
    return value


def number(value: Any, key: str) -> float:
    """Return ``value``, which ``key`` names in the message, as a float.

    Raises:
        TypeError: it is no finite number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{key!r} is {value!r:.40}, expected a number")
    return float(value)
