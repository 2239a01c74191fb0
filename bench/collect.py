"""Merge rows that benchmarks wrote into one file, results/performance.json.

    python bench/collect.py rows/*.json -o results/performance.json

A row takes the place of the one with the same work, against what, and hardware; others stay. Each
is checked: a field that is missing, or a number that is none, ends with an error and writes
nothing. With ``--show`` the file is only shown, as a table.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clrelkt.errors import ClrelktError, DataError
from clrelkt.files import write_json

FIELDS = (
    "work",
    "against",
    "target",
    "ratio",
    "spread",
    "ours",
    "theirs",
    "unit",
    "peak_memory",
    "command",
    "commit",
    "hardware",
)
NUMBERS = ("target", "ratio", "ours", "theirs")
TEXTS = ("work", "against", "unit", "command", "commit", "hardware")


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a file: one object, or a list of them.

    Raises:
        DataError: it cannot be read, or a row lacks something.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: no rows can be read ({error}); run its benchmark anew") from error
    rows = found if isinstance(found, list) else [found]
    for number, row in enumerate(rows):
        fault = fault_of(row)
        if fault:
            raise DataError(f"{file}: row {number}: {fault}; run its benchmark anew")
    return rows


def fault_of(row: Any) -> str | None:
    """Say what is wrong with a row; None where nothing is."""
    if not isinstance(row, dict):
        return f"an object expected, got {row!r:.60}"
    missing = [name for name in FIELDS if name not in row]
    if missing:
        return f"{', '.join(missing)} missing"
    for name in NUMBERS:
        if not is_number(row[name]):
            return f"{name} is {row[name]!r}, a number expected"
    for name in TEXTS:
        if not isinstance(row[name], str) or not row[name]:
            return f"{name} is {row[name]!r}, a text expected"
    spread = row["spread"]
    if not (isinstance(spread, list) and len(spread) == 2 and all(map(is_number, spread))):
        return f"spread is {spread!r}, its lowest and highest ratio expected"
    if row["peak_memory"] is not None and not is_number(row["peak_memory"]):
        return f"peak_memory is {row['peak_memory']!r}, bytes or null expected"
    return None


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def merged(old: Iterable[dict[str, Any]], new: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows in order of work, a later one in the place of an earlier one."""
    rows = {(row["work"], row["against"], row["hardware"]): row for row in (*old, *new)}
    return [
        {name: rows[key][name] for name in (*FIELDS, *extra(rows[key]))} for key in sorted(rows)
    ]


def extra(row: dict[str, Any]) -> list[str]:
    """Return the names of what a row has beside the fields that all have."""
    return [name for name in row if name not in FIELDS]


def show(rows: Iterable[dict[str, Any]]) -> None:
    """Print rows as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for title in ("work", "against"):
        table.add_column(title)
    for title in ("target", "ratio", "spread", "ours", "theirs", "peak GiB"):
        table.add_column(title, justify="right")
    for row in rows:
        low, high = row["spread"]
        memory = row["peak_memory"]
        reached = "green" if row["ratio"] >= row["target"] else "red"
        table.add_row(
            row["work"],
            row["against"],
            f"{row['target']:g}",
            f"[{reached}]{row['ratio']:.2f}[/]",
            f"{low:.2f} to {high:.2f}",
            f"{row['ours']:,.4g} {row['unit']}",
            f"{row['theirs']:,.4g}",
            "-" if memory is None else f"{memory / 2**30:.1f}",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="ROWS")
    parser.add_argument("-o", "--output", type=Path, default=Path("results/performance.json"))
    parser.add_argument("--show", action="store_true", help="show the rows that are there")
    arguments = parser.parse_args()
    try:
        old = read_rows(arguments.output) if arguments.output.exists() else []
        rows = merged(old, (row for file in arguments.files for row in read_rows(file)))
        if arguments.files:
            write_json(arguments.output, rows)
    except ClrelktError as error:
        sys.exit(f"error: {error}")
    if arguments.show or not arguments.files:
        show(rows)


if __name__ == "__main__":
    main()
