"""A measurement as one row of the table of all: a JSON object in a file of its own."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from clrelkt.files import write_json
from clrelkt.training.environment import describe_environment

__all__ = ["Row", "write_rows"]


@dataclass(frozen=True, slots=True)
class Row:
    """Ours against a peer or a limit on the same work.

    ``ratio`` is to be at least ``target``; ``spread`` is its lowest and highest of the rounds.
    ``ours`` and ``theirs`` are in ``unit``, ``peak_memory`` in bytes (None: not measured).
    """

    work: str
    against: str
    target: float
    ratio: float
    spread: tuple[float, float]
    ours: float
    theirs: float
    unit: str
    peak_memory: int | None


def write_rows(file: Path, rows: list[Row]) -> None:
    """Write rows with the command, the commit and the hardware; a single one as one object."""
    environment = describe_environment()
    where = {
        "command": shlex.join(["python", *sys.argv]),
        "commit": environment["commit"],
        "hardware": environment["hardware"],
        "packages": environment["packages"],
    }
    records = [json.loads(json.dumps(asdict(row))) | where for row in rows]
    write_json(file, records[0] if len(records) == 1 else records)
