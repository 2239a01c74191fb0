"""Vectors to mine with: encoded in chunks that are kept, or from a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from clrelkt.encoders.devices import each_device
from clrelkt.encoders.protocol import Encoder, TextKind
from clrelkt.errors import DataError
from clrelkt.files import storage_errors
from clrelkt.mining.chunks import ChunkFolder, Work
from clrelkt.mining.texts import distinct

__all__ = ["encode_in_chunks", "file_digest", "read_vectors"]

_ROWS_AT_ONCE = 2**16


def encode_in_chunks(
    encoder: Encoder,
    texts: Sequence[str],
    kind: TextKind,
    folder: ChunkFolder,
    name: str,
    *,
    size: int,
    done: Callable[[int], None],
) -> np.ndarray:
    """Return the vectors of ``texts``, shape (texts, dimension), float32.

    Each distinct text is encoded once, ``size`` at a time, by ``encoder.encode``; what is in
    ``folder`` already is not encoded again. ``done`` is told how many distinct texts are.
    Devices that the encoder computes on take chunks in turn.
    """
    once, which = distinct(texts)
    work = Work(name, len(once), size)

    def encoded(own: Encoder, rows: slice) -> np.ndarray:
        return own.encode(once[rows], kind)

    folder.compute_side_by_side(work, [partial(encoded, own) for own in each_device(encoder)], done)
    vectors = folder.gathered(work)
    return vectors if len(once) == len(texts) else vectors[which]


def read_vectors(file: Path, rows: int, what: str) -> np.ndarray:
    """Return the vectors of a NumPy file as unit vectors, shape (rows, dimension).

    Unit vectors in float32 stay on disk and are read as they are needed; others are brought to
    length 1 in memory.

    Raises:
        DataError: no such file or none of vectors, another number of rows than ``rows`` (of
            ``what``), or a vector with NaN, infinity or of length 0.
    """
    try:
        vectors = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: cannot be read as a NumPy file of vectors: {error}") from error
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise DataError(
            f"{file}: holds an array of shape {vectors.shape} and type {vectors.dtype}; one row of "
            "floating-point numbers a text expected"
        )
    if len(vectors) != rows:
        raise DataError(
            f"{file}: holds {len(vectors)} vectors for {rows} {what}; one each expected"
        )
    lengths = _lengths(vectors, file)
    found: np.ndarray = vectors
    if vectors.dtype != np.float32 or not bool((np.abs(lengths - 1) < 1e-3).all()):
        found = np.asarray(vectors, np.float32) / lengths[:, None]
    return found


def file_digest(file: Path) -> str:
    """Return the checksum of a file, hexadecimal."""
    with storage_errors(file, advice="Name a file that can be read"), file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def _lengths(vectors: np.ndarray, file: Path) -> np.ndarray:
    lengths = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        lengths[part] = np.linalg.norm(np.asarray(vectors[part], np.float32), axis=1)
        wrong = np.flatnonzero(~np.isfinite(lengths[part]) | (lengths[part] == 0))
        if len(wrong):
            row = start + int(wrong[0])
            fault = "is zero" if lengths[row] == 0 else "holds NaN or infinity"
            raise DataError(f"{file}: the vector in row {row} {fault}; encode its text again")
    return lengths
