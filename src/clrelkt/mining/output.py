"""Mined triplets as a file: JSON Lines or Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from clrelkt.errors import MissingExtraError, SettingsError
from clrelkt.files import atomic_file
from clrelkt.mining.sets import MiningSet

__all__ = ["Kind", "Mined", "check_output", "mined_of", "write_mined"]

Kind = Literal["bm25", "hard", "semi-hard"]
"""Why a text is a negative."""

_ADVICE = "What was mined is kept: free some space and --resume"
_GROUP = 100_000


@dataclass(frozen=True, slots=True)
class Mined:
    """A question, a text that answers it and one that does not, by id."""

    question_id: str
    positive_id: str
    negative_id: str
    kind: Kind


def mined_of(given: MiningSet, first: int, negatives: Any, hard: int | None) -> Iterator[Mined]:
    """Yield the triplets of some rows of a set.

    ``negatives`` (rows, quota) are candidate numbers, -1 for none, of the rows from ``first`` on;
    the first ``hard`` of a row are hard ones, the rest semi-hard; None: all are BM25's.
    """
    for row, numbers in enumerate(negatives.tolist(), start=first):
        positive = given.candidate_ids[int(given.golds[row, 0])]
        for place, number in enumerate(numbers):
            if number < 0:
                continue
            kind: Kind = "bm25" if hard is None else "hard" if place < hard else "semi-hard"
            yield Mined(given.question_ids[row], positive, given.candidate_ids[number], kind)


def check_output(file: Path) -> None:
    """Check that triplets can be written to ``file``.

    Raises:
        SettingsError: it is there already, or its name ends in neither .jsonl nor .parquet.
        MissingExtraError: a Parquet file without pyarrow.
    """
    if file.suffix not in (".jsonl", ".parquet"):
        raise SettingsError(f"{file}: a name that ends in .jsonl or .parquet expected")
    if file.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise MissingExtraError("pyarrow", "mining")
    if file.exists():
        raise SettingsError(f"{file} is there already; delete it or name another")


def write_mined(file: Path, rows: Iterable[Mined], texts: dict[str, str] | None = None) -> int:
    """Write triplets, atomically; return how many.

    With ``texts``, by question and candidate id under ``q`` or ``c`` and the id, each row has the
    texts too, under ``anchor``, ``positive`` and ``negative``.

    Raises:
        StorageError: the file cannot be written.
    """
    records = (_record(row, texts) for row in rows)
    with atomic_file(file, advice=_ADVICE) as new:
        if file.suffix == ".parquet":
            return _write_parquet(new, records, texts is not None)
        count = 0
        with new.open("w", encoding="utf-8") as stream:
            for record in records:
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")
                count += 1
        return count


def _record(row: Mined, texts: dict[str, str] | None) -> dict[str, str]:
    record: dict[str, str] = asdict(row)
    if texts is not None:
        record["anchor"] = texts["q" + row.question_id]
        record["positive"] = texts["c" + row.positive_id]
        record["negative"] = texts["c" + row.negative_id]
    return record


def _write_parquet(file: Path, records: Iterator[dict[str, str]], with_texts: bool) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["question_id", "positive_id", "negative_id", "kind"]
    names += ["anchor", "positive", "negative"] if with_texts else []
    schema = pa.schema([(name, pa.string()) for name in names])
    count = 0
    with pq.ParquetWriter(file, schema) as writer:
        while group := list(islice(records, _GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            count += len(group)
    return count
