"""Long computations in chunks that are kept as they finish, so that a killed one can go on."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clrelkt.errors import DataError, SettingsError
from clrelkt.files import atomic_file, storage_errors, write_json

__all__ = ["ChunkFolder", "Work"]

_FORMAT = 1
_PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class Work:
    """Rows to compute in chunks: ``rows`` in all, ``size`` at once, under a name of its own."""

    name: str
    rows: int
    size: int

    def __iter__(self) -> Iterator[tuple[int, slice]]:
        """Yield each chunk's number and rows."""
        for number, start in enumerate(range(0, self.rows, self.size)):
            yield number, slice(start, min(start + self.size, self.rows))


class ChunkFolder:
    """A folder of finished chunks, and the plan that they belong to.

    ``plan`` holds everything that the result depends on. A folder is taken up again only for the
    same plan; chunks appear in it whole or not at all.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any], *, resume: bool) -> None:
        """Begin a folder, or take it up again.

        Raises:
            SettingsError: it is there already and ``resume`` is off, or holds another plan.
            DataError: its plan cannot be read.
            StorageError: it cannot be written.
        """
        self.folder = folder
        wanted = json.loads(json.dumps({"format": _FORMAT} | dict(plan)))
        file = folder / _PLAN
        if not file.exists():
            with storage_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
            write_json(file, wanted)
            return
        if not resume:
            raise SettingsError(
                f"{folder} holds the chunks of an earlier run; go on with --resume, or delete it"
            )
        _check_plan(file, wanted)

    def compute(
        self,
        work: Work,
        chunk: Callable[[slice], np.ndarray],
        done: Callable[[int], None],
        *,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Compute the chunks that are missing; ``done`` is told the rows of each, old or new.

        ``share`` (number, of how many) takes only each so manieth chunk: processes with the
        shares of one whole can fill the same folder together.

        Raises:
            StorageError: a chunk cannot be written; those before it are kept.
        """
        for number, rows in _share(work, share):
            self._compute_one(work, number, rows, chunk)
            done(rows.stop - rows.start)

    def compute_side_by_side(
        self,
        work: Work,
        chunks: Sequence[Callable[[slice], np.ndarray]],
        done: Callable[[int], None],
        *,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Compute the chunks that are missing with several functions, each in its own thread.

        All of ``chunks`` make the same of the same rows; one that is done takes the next. When one
        fails, the others end after the chunk that they are at.

        ``share`` is as in ``compute``.

        Raises:
            StorageError: a chunk cannot be written; finished ones are kept.
        """
        if len(chunks) == 1:
            self.compute(work, chunks[0], done, share=share)
            return
        coming, lock, stopped = _share(work, share), threading.Lock(), threading.Event()

        def take(chunk: Callable[[slice], np.ndarray]) -> None:
            try:
                while not stopped.is_set():
                    with lock:
                        number, rows = next(coming, (0, None))
                    if rows is None:
                        return
                    self._compute_one(work, number, rows, chunk)
                    with lock:
                        done(rows.stop - rows.start)
            except BaseException:
                stopped.set()
                raise

        with ThreadPoolExecutor(len(chunks)) as pool:
            try:
                for taker in [pool.submit(take, chunk) for chunk in chunks]:
                    taker.result()
            finally:
                # The user's Ctrl-C comes to this thread alone.
                stopped.set()

    def _compute_one(
        self, work: Work, number: int, rows: slice, chunk: Callable[[slice], np.ndarray]
    ) -> None:
        file = self._file(work, number)
        if file.exists():
            return
        found = chunk(rows)
        advice = "What is finished is kept: free some space and --resume"
        with atomic_file(file, advice=advice) as new, new.open("wb") as stream:
            np.save(stream, found, allow_pickle=False)

    def chunks(self, work: Work) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the rows and the array of each chunk, in order.

        Raises:
            DataError: one is missing or cannot be read.
        """
        for number, rows in work:
            file = self._file(work, number)
            try:
                found = np.load(file, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise DataError(
                    f"{file}: the chunk of rows {rows.start} to {rows.stop} cannot be read "
                    f"({error}); delete the file and --resume"
                ) from error
            if len(found) != rows.stop - rows.start:
                raise DataError(
                    f"{file}: holds {len(found)} rows, {rows.stop - rows.start} expected; delete "
                    "the file and --resume"
                )
            yield rows, found

    def gathered(self, work: Work) -> np.ndarray:
        """Return all chunks as one array.

        Raises:
            DataError: one is missing or cannot be read.
        """
        whole: np.ndarray | None = None
        for rows, found in self.chunks(work):
            if whole is None:
                whole = np.empty((work.rows, *found.shape[1:]), found.dtype)
            whole[rows] = found
        return np.empty((0, 0), np.float32) if whole is None else whole

    def remove(self) -> None:
        """Delete the folder and all that is in it."""
        with storage_errors(self.folder):
            shutil.rmtree(self.folder)

    def _file(self, work: Work, number: int) -> Path:
        return self.folder / f"{work.name}-{number:06d}.npy"


def _share(work: Work, share: tuple[int, int]) -> Iterator[tuple[int, slice]]:
    return ((number, rows) for number, rows in work if number % share[1] == share[0])


def _check_plan(file: Path, wanted: Mapping[str, Any]) -> None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read ({error}); delete its folder and begin anew"
        ) from error
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise SettingsError(
                f"{file}: the chunks there were made with {key} {found.get(key)!r}, now it is "
                f"{wanted.get(key)!r}; go on with the same settings, or delete the folder"
            )
