"""Files with a document a record: JSON Lines, CSV and Parquet, read record by record."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clrelkt.corpora.languages import ISO_639_1
from clrelkt.errors import CorpusError, Fault, MissingExtraError
from clrelkt.search.documents import IndexDocument, is_unicode

__all__ = ["RECORD_READERS", "Fields", "read_records"]

_LONGEST_FIELD = 2**27
"""Characters of a field of a CSV file; csv itself stops at 131,072."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a record are what; None is the first of the usual names that it has."""

    id: str | None = None
    text: str | None = None
    title: str | None = None
    language: str | None = None


_USUAL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "id": ("id", "_id", "doc_id", "docid", "document_id"),
        "text": ("text", "contents", "content", "passage", "body", "context", "doc"),
        "title": ("title",),
        "language": ("language", "lang"),
    }
)

_Record = tuple[str, Any]
"""The place of a record in its file, and the record, or the message of what is wrong with it."""


class _BadRecordError(Exception):
    pass


def read_records(
    path: Path, fields: Fields, left_out: list[Fault] | None = None
) -> Iterator[IndexDocument]:
    """Yield the documents of a file.

    Everything in a record that is not id, text, title or language is metadata. A record without
    an id gets one of the file's name and its number.

    Args:
        path: the file; its ending tells its kind.
        fields: which fields are what.
        left_out: faults go there and their records are passed over; None to stop at the first.

    Raises:
        CorpusError: a record has a fault, or the file cannot be read.
    """
    for number, (place, record) in enumerate(RECORD_READERS[path.suffix.lower()](path), 1):
        try:
            if isinstance(record, _BadRecordError):
                raise record
            yield _document(path, place, number, record, fields)
        except _BadRecordError as error:
            fault = Fault(str(path), place, str(error))
            if left_out is None:
                raise CorpusError([fault]) from None
            left_out.append(fault)


def _document(path: Path, place: str, number: int, record: Any, fields: Fields) -> IndexDocument:
    if not isinstance(record, Mapping):
        raise _BadRecordError(f"is {type(record).__name__}, expected an object with a text")
    names = {what: _name(what, getattr(fields, what), record) for what in _USUAL}
    text = _text(record, names["text"], "text")
    if text is None or not text.strip():
        wanted = names["text"] or f"none of {', '.join(_USUAL['text'])}"
        raise _BadRecordError(f"has no text ({wanted}); name the field with --text-field")
    id_ = record.get(names["id"])
    if isinstance(id_, bool) or not isinstance(id_, str | int | None):
        raise _BadRecordError(f"its id {id_!r} is neither text nor a whole number")
    language = _text(record, names["language"], "language") or None
    if language is not None and language not in ISO_639_1:
        raise _BadRecordError(f"language {language!r} is no code of ISO 639-1, such as de")
    return IndexDocument(
        id=f"{path.stem}-{number}" if id_ is None or id_ == "" else str(id_),
        text=text,
        title=_text(record, names["title"], "title") or "",
        language=language,
        metadata=dict(_metadata(record, set(names.values()))),
        place=f"{path}: {place}",
    )


def _name(what: str, given: str | None, record: Mapping[str, Any]) -> str | None:
    if given is None:
        return next((name for name in _USUAL[what] if name in record), None)
    if given not in record and what != "title":
        raise _BadRecordError(f"has no field {given!r}; it has {', '.join(map(repr, record))}")
    return given


def _text(record: Mapping[str, Any], name: str | None, what: str) -> str | None:
    value = None if name is None else record.get(name)
    if value is not None and not isinstance(value, str):
        raise _BadRecordError(f"{what} is {value!r:.60}, expected text")
    if value is not None and not is_unicode(value):
        raise _BadRecordError(f"{what} holds half of a surrogate pair, which is no character")
    return value


def _metadata(record: Mapping[str, Any], used: set[str | None]) -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if key == "metadata" and isinstance(value, Mapping):
            yield from _metadata(value, set())
        elif key not in used and value is not None:
            if isinstance(value, float) and not math.isfinite(value):
                raise _BadRecordError(f"{key} is {value}, which is no number; leave it out")
            known = isinstance(value, str | int | float | bool | list | dict)
            yield str(key), value if known else str(value)


def _read_json_lines(path: Path) -> Iterator[_Record]:
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"line {number}", _parsed(line)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except UnicodeDecodeError:
        return _BadRecordError("is not UTF-8 text; save it as UTF-8")
    except (json.JSONDecodeError, RecursionError, ValueError) as error:
        return _BadRecordError(f"is not valid JSON: {error}")


def _read_csv(path: Path) -> Iterator[_Record]:
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            for row in reader:
                place = f"line {reader.line_num}"
                if None in row or None in row.values():
                    width = len(reader.fieldnames or ())
                    yield place, _BadRecordError(f"has not the {width} fields of the first line")
                else:
                    yield place, {key: value for key, value in row.items() if value != ""}
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise CorpusError([Fault(str(path), "", f"cannot be read: {error}")]) from error


def _read_parquet(path: Path) -> Iterator[_Record]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "index") from error
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    yield f"row {number}", row
                    number += 1
    except (OSError, pyarrow.ArrowException) as error:
        raise CorpusError([Fault(str(path), "", f"cannot be read: {error}")]) from error


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        fault = Fault(str(path), "", f"cannot be read: {error.strerror or error}")
        raise CorpusError([fault]) from error


RECORD_READERS: Mapping[str, Callable[[Path], Iterator[_Record]]] = MappingProxyType(
    {
        ".jsonl": _read_json_lines,
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".parquet": _read_parquet,
    }
)
"""What reads a file of records, by its ending."""
