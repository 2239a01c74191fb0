"""A part of an index that never changes: its documents, their passages and vectors.

A segment is a folder:

- ``texts.sqlite``: documents, their metadata, passages and where their sentences begin;
- ``halves.bin``: the passages' vectors, float16; with 8-bit vectors also ``bytes.bin`` and
  ``scales.bin``;
- ``sentences.bin``, ``sentence-scales.bin``: vectors in 8 bits of the sentences of passages that
  have more than one;
- ``owners.bin``: which document each passage belongs to, int32;
- ``languages.bin``: which row of the table ``languages`` each document's is, uint16;
- ``ids.bin``: a hash of every document's id, sorted, uint64;
- ``lengths.bin``, ``posting-rows.bin``, ``posting-counts.bin``: how many words each passage has
  (int32), which passages have each word of the table ``words`` (int32), and how often (uint16).
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from clrelkt.errors import SearchIndexError, StorageError
from clrelkt.files import storage_errors
from clrelkt.search.documents import IndexDocument
from clrelkt.search.hits import StoredDocument, StoredPassage, Where, value_key
from clrelkt.search.settings import IndexSettings
from clrelkt.search.vectors import VectorBlock, quantise
from clrelkt.text.sentences import Span

__all__ = ["CutDocument", "CutPassage", "Segment", "SegmentWriter", "StoredRow", "hash_ids"]

_SCHEMA = """
CREATE TABLE documents (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL,
    language TEXT NOT NULL, metadata TEXT NOT NULL, first INTEGER NOT NULL, stop INTEGER NOT NULL);
CREATE TABLE languages (number INTEGER PRIMARY KEY, code TEXT NOT NULL);
CREATE TABLE metadata (key TEXT NOT NULL, value TEXT NOT NULL, document INTEGER NOT NULL);
CREATE TABLE passages (
    row INTEGER PRIMARY KEY, document INTEGER NOT NULL, id TEXT NOT NULL, text TEXT NOT NULL,
    sentences BLOB NOT NULL, first_vector INTEGER NOT NULL);
CREATE TABLE words (
    word TEXT PRIMARY KEY, start INTEGER NOT NULL, stop INTEGER NOT NULL) WITHOUT ROWID;
"""
_MOST = 2**16 - 1
_VALUES = 512
"""Values that are looked for at a time; SQLite has a limit."""
_INDEXES = """
CREATE INDEX metadata_by_value ON metadata (key, value, document);
"""


@dataclass(frozen=True, slots=True)
class CutPassage:
    """A passage on its way into a segment: its id, its text, where its sentences are, its words.

    ``words`` is None where the index keeps none.
    """

    id: str
    text: str
    sentences: tuple[Span, ...]
    words: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class CutDocument:
    """A document on its way into a segment, with its language and its passages."""

    document: IndexDocument
    language: str
    passages: tuple[CutPassage, ...]


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A passage of a segment with its document.

    ``sentence_vectors`` are rows of the segment's sentence vectors; None where it has none.
    """

    document_id: str
    title: str
    language: str
    metadata: Mapping[str, Any]
    passage_id: str
    text: str
    sentences: tuple[Span, ...]
    sentence_vectors: slice | None


def hash_ids(ids: Sequence[str]) -> np.ndarray:
    """Return a hash of each id, shape (ids,), uint64."""
    digests = (hashlib.blake2b(id_.encode(), digest_size=8).digest() for id_ in ids)
    return np.frombuffer(b"".join(digests), np.uint64)


@dataclass(slots=True)
class _Rows:
    """What is written of a batch of documents at one go."""

    passages: list[tuple[int, int, str, str, bytes, int]] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    documents: list[tuple[int, str, str, str, str, int, int]] = field(default_factory=list)
    languages: list[int] = field(default_factory=list)
    metadata: list[tuple[str, str, int]] = field(default_factory=list)


class SegmentWriter:
    """Writes a segment."""

    def __init__(self, folder: Path, settings: IndexSettings) -> None:
        """Begin a segment in ``folder``, which must not exist.

        Raises:
            StorageError: it cannot be written.
        """
        self._settings = settings
        self._folder = folder
        with storage_errors(folder):
            folder.mkdir(parents=True)
            self._files = {name: (folder / name).open("wb") for name in _file_names(settings)}
        self._database = sqlite3.connect(folder / "texts.sqlite", isolation_level=None)
        self._database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _SCHEMA)
        self._database.execute("BEGIN")
        self.document_ids: dict[str, None] = {}
        self.failed = False
        self.rows = 0
        self._sentences = 0
        self._postings = _PostingsWriter()
        self._languages: dict[str, int] = {}

    def add(
        self,
        documents: Sequence[CutDocument],
        vectors: np.ndarray,
        sentence_vectors: np.ndarray | None,
    ) -> None:
        """Add documents.

        ``vectors`` are those of all their passages, shape (passages, dimension), float32;
        ``sentence_vectors`` (sentences, dimension) those of the sentences of passages that have
        more than one, None where they are not kept.

        Raises:
            StorageError: it cannot be written.
        """
        self.failed = True
        with storage_errors(self._folder), _database_errors(self._folder):
            self._write_vectors(vectors)
            rows = _Rows()
            for cut in documents:
                self._add_document(cut, sentence_vectors is not None, rows)
            self._write_rows(rows)
            if sentence_vectors is not None:
                integers, scales = quantise(sentence_vectors)
                self._files["sentences.bin"].write(integers.tobytes())
                self._files["sentence-scales.bin"].write(scales.tobytes())
        self.failed = False

    def _write_vectors(self, vectors: np.ndarray) -> None:
        self._files["halves.bin"].write(vectors.astype(np.float16).tobytes())
        if self._settings.precision == "int8":
            integers, scales = quantise(vectors)
            self._files["bytes.bin"].write(integers.tobytes())
            self._files["scales.bin"].write(scales.tobytes())

    def _add_document(self, cut: CutDocument, with_sentences: bool, rows: _Rows) -> None:
        number, first, document = len(self.document_ids), self.rows, cut.document
        for passage in cut.passages:
            counted = with_sentences and len(passage.sentences) > 1
            starts = array("i", [span.start for span in passage.sentences]).tobytes()
            vector = self._sentences if counted else -1
            rows.passages.append((self.rows, number, passage.id, passage.text, starts, vector))
            rows.owners.append(number)
            self.rows += 1
            self._sentences += len(passage.sentences) if counted else 0
            if passage.words is not None:
                self._postings.add(passage.words)
        rows.languages.append(self._languages.setdefault(cut.language, len(self._languages)))
        metadata = json.dumps(dict(document.metadata), ensure_ascii=False)
        rows.documents.append(
            (number, document.id, document.title, cut.language, metadata, first, self.rows)
        )
        rows.metadata.extend(
            (key, value_key(value), number)
            for key, value in document.metadata.items()
            if isinstance(value, str | int | float | bool)
        )
        self.document_ids[document.id] = None

    def _write_rows(self, rows: _Rows) -> None:
        self._files["owners.bin"].write(np.array(rows.owners, np.int32).tobytes())
        self._files["languages.bin"].write(np.array(rows.languages, np.uint16).tobytes())
        insert = self._database.executemany
        insert("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?)", rows.passages)
        insert("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?)", rows.documents)
        insert("INSERT INTO metadata VALUES (?, ?, ?)", rows.metadata)

    def finish(self) -> None:
        """Put everything on the disk.

        Raises:
            StorageError: it cannot be written.
        """
        with storage_errors(self._folder), _database_errors(self._folder):
            self._files["ids.bin"].write(np.sort(hash_ids(list(self.document_ids))).tobytes())
            self._database.executemany(
                "INSERT INTO languages (code, number) VALUES (?, ?)", self._languages.items()
            )
            if self._settings.words:
                self._write_postings()
            self._database.execute("COMMIT")
            self._database.executescript(_INDEXES)
            self._database.close()
            for file in self._files.values():
                _close(file)
            for path in (self._folder / "texts.sqlite", self._folder):
                _sync(path)

    def _write_postings(self) -> None:
        words, starts, rows, counts = self._postings.sorted()
        self._files["lengths.bin"].write(np.array(self._postings.lengths, np.int32).tobytes())
        self._files["posting-rows.bin"].write(rows.tobytes())
        self._files["posting-counts.bin"].write(counts.tobytes())
        limits = starts.tolist()
        self._database.executemany(
            "INSERT INTO words VALUES (?, ?, ?)", zip(words, limits, limits[1:], strict=False)
        )

    def abandon(self) -> None:
        """Close the files without a thought for what is in them."""
        self._database.close()
        for file in self._files.values():
            file.close()


@contextmanager
def _database_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StorageError(
            f"{folder / 'texts.sqlite'}: {error}. Free some space or name a folder that can be "
            "written"
        ) from error


class _PostingsWriter:
    """The words of passages, gathered until a segment ends."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self._number: dict[str, int] = {}
        self._words = array("i")
        self._counts = array("H")
        self._distinct = array("i")

    def add(self, words: Sequence[str]) -> None:
        """Take in the words of the next passage."""
        number = self._number
        counted = Counter(words)
        self.lengths.append(len(words))
        self._distinct.append(len(counted))
        self._words.extend([number.setdefault(word, len(number)) for word in counted])
        self._counts.extend([min(count, _MOST) for count in counted.values()])

    def sorted(self) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
        """Return the words, where each one's postings start, and the postings: rows and counts.

        Postings stand by word, then by row; there is one start more than words.
        """
        words = sorted(self._number)
        rank = np.empty(len(words), np.int64)
        rank[[self._number[word] for word in words]] = np.arange(len(words))
        numbers = rank[np.frombuffer(self._words, np.int32)] if words else np.empty(0, np.int64)
        distinct = np.frombuffer(self._distinct, np.int32) if self._distinct else [0]
        rows = np.repeat(np.arange(len(distinct), dtype=np.int32), distinct)
        order = np.argsort(numbers, kind="stable")
        starts = np.concatenate(([0], np.cumsum(np.bincount(numbers, minlength=len(words)))))
        counts = np.frombuffer(self._counts, np.uint16) if words else np.empty(0, np.uint16)
        return words, starts, rows[order], counts[order]


def _file_names(settings: IndexSettings) -> list[str]:
    names = ["halves.bin", "owners.bin", "languages.bin", "ids.bin"]
    names += ["sentences.bin", "sentence-scales.bin"]
    if settings.precision == "int8":
        names += ["bytes.bin", "scales.bin"]
    if settings.words:
        names += ["lengths.bin", "posting-rows.bin", "posting-counts.bin"]
    return names


def _close(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Segment:
    """A segment that is read; threads may share it.

    Everything is opened at once, so that it can still be read when a writer has removed it.
    """

    def __init__(
        self, folder: Path, dimension: int, deleted: np.ndarray, settings: IndexSettings
    ) -> None:
        """Open the segment in ``folder``.

        ``deleted`` are numbers of documents that are no longer there, sorted, int32.

        Raises:
            SearchIndexError: its files are missing or do not fit together.
        """
        self.name = folder.name
        self.folder = folder
        self.deleted = deleted
        halves = _mapped(folder / "halves.bin", np.float16, dimension)
        integers = scales = None
        if settings.precision == "int8":
            integers = _mapped(folder / "bytes.bin", np.int8, dimension)
            scales = _mapped(folder / "scales.bin", np.float32)
        self.block = VectorBlock(halves, integers, scales)
        self.owners = _mapped(folder / "owners.bin", np.int32)
        self.sentence_vectors = _mapped(folder / "sentences.bin", np.int8, dimension)
        self.sentence_scales = _mapped(folder / "sentence-scales.bin", np.float32)
        self._ids = _mapped(folder / "ids.bin", np.uint64)
        self.documents = len(self._ids)
        self.lengths = np.empty(0, np.int32)
        if settings.words:
            self.lengths = _mapped(folder / "lengths.bin", np.int32)
            self._posting_rows = _mapped(folder / "posting-rows.bin", np.int32)
            self._posting_counts = _mapped(folder / "posting-counts.bin", np.uint16)
        rows = {len(values) for values in (halves, integers, scales) if values is not None}
        if rows | ({len(self.lengths)} if settings.words else set()) != {len(self.owners)}:
            raise SearchIndexError(
                f"{folder} is damaged: vectors of {rows} passages, but {len(self.owners)} passages"
            )
        self._lock = threading.Lock()
        uri = f"{(folder / 'texts.sqlite').resolve().as_uri()}?mode=ro&immutable=1"
        try:
            self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)
            self._database.execute("SELECT 1 FROM documents LIMIT 1").fetchall()
        except sqlite3.Error as error:
            raise SearchIndexError(
                f"{folder / 'texts.sqlite'}: cannot be read ({error})"
            ) from error
        self._languages = dict(self._rows("SELECT code, number FROM languages"))
        self._language = _mapped(folder / "languages.bin", np.uint16)
        self.present = np.ones(self.documents, bool)
        self.present[deleted] = False

    def __len__(self) -> int:
        return len(self.owners)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def __del__(self) -> None:
        # A reader that goes over to a newer generation does not know when the last search ends.
        if hasattr(self, "_database"):
            self._database.close()

    def find(self, ids: Sequence[str], hashes: np.ndarray | None = None) -> dict[str, int]:
        """Return the numbers of those documents that are here and not deleted, by id."""
        hashes = hash_ids(ids) if hashes is None else hashes
        if not self.documents:
            return {}
        places = np.searchsorted(self._ids, hashes).clip(max=self.documents - 1)
        maybe = [ids[number] for number in np.flatnonzero(self._ids[places] == hashes).tolist()]
        found = {}
        for id_ in maybe:
            for (number,) in self._rows("SELECT number FROM documents WHERE id = ?", id_):
                if self.present[number]:
                    found[id_] = int(number)
        return found

    def ids(self, start: int, stop: int) -> list[str]:
        """Return the ids of the documents numbered from ``start`` to before ``stop``."""
        query = "SELECT id FROM documents WHERE number >= ? AND number < ? ORDER BY number"
        return [id_ for (id_,) in self._rows(query, start, stop)]

    def row(self, row: int) -> StoredRow:
        """Return the passage at ``row``, with its document."""
        return self.read([row])[row]

    def read(self, rows: Sequence[int]) -> dict[int, StoredRow]:
        """Return the passages at ``rows``, with their documents."""
        query = (
            "SELECT p.row, p.id, p.text, p.sentences, p.first_vector, d.id, d.title, d.language, "
            "d.metadata FROM passages p JOIN documents d ON d.number = p.document WHERE p.row IN "
        )
        return {row: _stored(*values) for row, *values in self._among(query, rows)}

    def rows_of(self, number: int) -> tuple[int, int]:
        """Return the first row of a document, and the row behind its last."""
        ((first, stop),) = self._rows("SELECT first, stop FROM documents WHERE number = ?", number)
        return first, stop

    def document(self, number: int) -> StoredDocument:
        """Return a document with its passages."""
        ((id_, title, language, metadata, first, stop),) = self._rows(
            "SELECT id, title, language, metadata, first, stop FROM documents WHERE number = ?",
            number,
        )
        passages = self._rows(
            "SELECT id, text FROM passages WHERE row >= ? AND row < ? ORDER BY row", first, stop
        )
        return StoredDocument(
            id_,
            title,
            language,
            json.loads(metadata),
            tuple(StoredPassage(*passage) for passage in passages),
        )

    def postings(self, words: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return where each word that is here stands: rows of passages, int32, and how often.

        How often is uint16.
        """
        query = "SELECT word, start, stop FROM words WHERE word IN "
        return {
            word: (self._posting_rows[start:stop], self._posting_counts[start:stop])
            for word, start, stop in self._among(query, words)
        }

    def numbers(
        self, languages: Sequence[str] | None = None, where: Where | None = None
    ) -> np.ndarray:
        """Return which documents are present, in ``languages``, with that metadata; bool."""
        chosen = self.present.copy()
        if languages is not None:
            wanted = [self._languages[code] for code in languages if code in self._languages]
            chosen &= np.isin(self._language, wanted)
        for key, value in (where or {}).items():
            values = [value] if isinstance(value, str | int | float | bool) else value
            marks = ",".join("?" * len(values))
            query = f"SELECT document FROM metadata WHERE key = ? AND value IN ({marks})"
            chosen &= self._mask(query, key, *map(value_key, values))
        return chosen

    def languages(self) -> Counter[str]:
        """Return the number of documents that are present, by language."""
        counts = np.bincount(self._language[self.present], minlength=len(self._languages))
        return Counter({code: int(counts[number]) for code, number in self._languages.items()})

    def _mask(self, query: str, *values: object) -> np.ndarray:
        mask = np.zeros(self.documents, bool)
        mask[[number for (number,) in self._rows(query, *values)]] = True
        return mask

    def _among(self, query: str, values: Sequence[object]) -> Iterator[Any]:
        """Yield what ``query``, which ends with IN, finds for any of the values."""
        for start in range(0, len(values), _VALUES):
            part = values[start : start + _VALUES]
            yield from self._rows(f"{query} ({','.join('?' * len(part))})", *part)

    def _rows(self, query: str, *values: object) -> list[Any]:
        with self._lock:
            try:
                return self._database.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise SearchIndexError(f"{self.folder}: cannot be read ({error})") from error


def _stored(
    id_: str,
    text: str,
    starts: bytes,
    first: int,
    document_id: str,
    title: str,
    language: str,
    metadata: str,
) -> StoredRow:
    limits = [*np.frombuffer(starts, np.int32).tolist(), len(text)]
    spans = tuple(map(Span, limits, limits[1:]))
    vectors = slice(first, first + len(spans)) if first >= 0 else None
    return StoredRow(document_id, title, language, json.loads(metadata), id_, text, spans, vectors)


def _mapped(path: Path, kind: Any, width: int | None = None) -> np.ndarray:
    """Map a file of numbers; changes to the array stay in memory."""
    item = np.dtype(kind).itemsize * (width or 1)
    try:
        size = path.stat().st_size
        if size % item:
            raise SearchIndexError(f"{path} is damaged: {size} bytes, no multiple of {item}")
        shape = (size // item,) if width is None else (size // item, width)
        # Copy on write: torch refuses to share arrays that cannot be written to.
        if not size:
            return np.empty(shape, kind)
        return np.memmap(path, kind, "c", shape=shape).view(np.ndarray)
    except FileNotFoundError as error:
        raise SearchIndexError(
            f"{path.parent} has no {path.name}, which this format of an index needs: the file was "
            "lost, or a clrelkt older than the first release wrote the index. Index again"
        ) from error
    except OSError as error:
        raise SearchIndexError(f"{path}: cannot be read ({error.strerror or error})") from error
