"""Records of any measurement as tables: rows of plain values under the names they have there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clrelkt.corpora.languages import ISO_639_1
from clrelkt.reports.tables import grid, longest_runs, plain_table, table_width

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["MeasuredTable", "Plain", "find_tables", "measured_tables"]

Plain = str | int | float | bool | None

_NAME = ""
"""The column with the names that rows have in a record."""

_HEADER = ("format", "kind", "command", "environment")
_MISSING = "–"  # noqa: RUF001
_VALUE = "value"


@dataclass(frozen=True, slots=True)
class MeasuredTable:
    """Rows of plain values; those of a row that has a name in the record stand under ``""``."""

    name: str
    rows: tuple[Mapping[str, Plain], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the name and the rows."""
        return {"name": self.name, "rows": [dict(row) for row in self.rows]}


def find_tables(record: Mapping[str, Any]) -> tuple[MeasuredTable, ...]:
    """Return what a record holds beside its header: every list and every object is a table.

    A list of objects, an object of objects and an object of such lists have a row an object; other
    objects a row a value, and what stands alone is the first table. A value further inside has its
    path for a name: ``means/all``.

    Raises:
        ValueError: a number that is not finite; nothing but a header.
    """
    alone: dict[str, Plain] = {}
    tables = []
    for key, value in record.items():
        if key in _HEADER:
            continue
        rows = _rows(value)
        if rows:
            tables.append(MeasuredTable(key, tuple(rows)))
        elif not isinstance(value, dict):
            alone[key] = _plain(value, key)
    if alone:
        tables.insert(0, MeasuredTable("", tuple(_listed(alone))))
    if not tables:
        raise ValueError("there is nothing in it that was measured")
    return tuple(tables)


def _rows(value: Any) -> list[dict[str, Plain]]:
    if isinstance(value, list):
        return [_flat(row) for row in value] if _are_objects(value) else []
    if not isinstance(value, dict):
        return []
    parts = list(value.values())
    if parts and all(isinstance(part, dict) for part in parts):
        return [{_NAME: key, **_flat(part)} for key, part in value.items()]
    if parts and all(_are_objects(part) for part in parts):
        return [{_NAME: key, **_flat(row)} for key, part in value.items() for row in part]
    return _listed(_flat(value))


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _listed(values: Mapping[str, Plain]) -> list[dict[str, Plain]]:
    return [{_NAME: key, _VALUE: value} for key, value in values.items()]


def _flat(row: Mapping[str, Any], before: str = "") -> dict[str, Plain]:
    found: dict[str, Plain] = {}
    for key, value in row.items():
        name = f"{before}{key}"
        if isinstance(value, dict):
            found |= _flat(value, f"{name}/")
        else:
            found[name] = _plain(value, name)
    return found


def _plain(value: Any, name: str) -> Plain:
    """Return a plain value; a list becomes one text, an empty one nothing."""
    if isinstance(value, list):
        return None if not value else ", ".join(_cell(_plain(part, name)) for part in value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise ValueError(f"{name!r} is {value}, expected a number")
    return str(value)


def measured_tables(
    table: MeasuredTable, *, width: int = 80, every_language: bool = False
) -> list[Table]:
    """Return tables of at most ``width`` characters where the names allow it.

    Columns that only some rows have follow in a table of their own, a line a value. Values of
    single languages (``languages/de/cosine``) are shown with ``every_language`` alone.
    """
    columns = list(dict.fromkeys(key for row in table.rows for key in row))
    columns = [key for key in columns if every_language or not _of_one_language(key)] or columns
    shared = [key for key in columns if all(key in row for row in table.rows)]
    named = _naming(table.rows, shared)
    labels = [" ".join(_cell(row[key]) for key in named) for row in table.rows]
    if len(set(labels)) < len(labels):
        labels = [f"{number} {label}".rstrip() for number, label in enumerate(labels, start=1)]
    rows = dict(zip(labels, table.rows, strict=True))
    shown = [key for key in shared if key not in named]
    found = _grids(table.name, rows, shown, width) if shown else []
    others = [
        (label, key, _cell(row[key]))
        for label, row in rows.items()
        for key in columns
        if key in row and key not in shared
    ]
    return [*found, *([_others(others, table.name if not shown else "")] if others else [])]


def _grids(
    name: str, rows: Mapping[str, Mapping[str, Plain]], shown: Sequence[str], width: int
) -> list[Table]:
    labels = list(rows)

    def upright(chosen: Sequence[str]) -> Table:
        return grid("", labels, chosen, lambda label, key: _cell(rows[label][key]), name)

    if shown == [_VALUE]:
        return [_values(name, rows)]
    if table_width(upright(shown)) <= width:
        return [upright(shown)]
    turned = grid("", shown, labels, lambda key, label: _cell(rows[label][key]), name)
    if table_width(turned) <= width:
        return [turned]
    return [
        upright(chosen)
        for chosen in longest_runs(shown, lambda chosen: table_width(upright(chosen)) <= width)
    ]


def _values(name: str, rows: Mapping[str, Mapping[str, Plain]]) -> Table:
    table = plain_table(name)
    table.show_header = False
    table.add_column("")
    table.add_column(_VALUE, overflow="fold")
    for label, row in rows.items():
        table.add_row(_escaped(label), _escaped(_cell(row[_VALUE])))
    return table


def _others(lines: Sequence[tuple[str, str, str]], name: str) -> Table:
    table = plain_table(name)
    table.show_header = False
    for _ in range(2):
        table.add_column("", overflow="fold")
    table.add_column("", overflow="fold", justify="right")
    for line in lines:
        table.add_row(*map(_escaped, line))
    return table


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _naming(rows: Sequence[Mapping[str, Plain]], columns: Sequence[str]) -> list[str]:
    """Return the first columns, as many as tell the rows apart; where none do, the first texts."""
    for count in range(1, len(columns)):
        chosen = columns[:count]
        if isinstance(rows[0][chosen[-1]], float):
            break
        if len({tuple(row[key] for key in chosen) for row in rows}) == len(rows):
            return list(chosen)
    return list(columns[:1]) if columns and isinstance(rows[0][columns[0]], str) else []


def _of_one_language(name: str) -> bool:
    parts = name.split("/")
    return len(parts) > 1 and any(part in ISO_639_1 for part in parts)


def _cell(value: Plain) -> str:
    """Write five figures, and whole numbers from a thousand on."""
    if value is None:
        return _MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.5g}"
    return value if isinstance(value, str) else f"{value:,}"
