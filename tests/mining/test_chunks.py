from __future__ import annotations

import resource
import threading
from pathlib import Path

import numpy as np
import pytest

from clrelkt.errors import DataError, SettingsError, StorageError
from clrelkt.mining.chunks import ChunkFolder, Work

WORK = Work("squares", 10, 4)


def squares(rows: slice) -> np.ndarray:
    numbers = np.arange(rows.start, rows.stop)
    return np.stack((numbers, numbers**2), axis=1)


def test_chunks_are_computed_once_and_gathered_in_order(tmp_path: Path) -> None:
    seen: list[slice] = []

    def chunk(rows: slice) -> np.ndarray:
        seen.append(rows)
        return squares(rows)

    done: list[int] = []
    ChunkFolder(tmp_path / "parts", {"a": 1}, resume=False).compute(WORK, chunk, done.append)
    again = ChunkFolder(tmp_path / "parts", {"a": 1}, resume=True)
    again.compute(WORK, chunk, done.append)
    assert seen == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert done == [4, 4, 2] * 2
    assert np.array_equal(again.gathered(WORK), squares(slice(0, 10)))
    again.remove()
    assert not (tmp_path / "parts").exists()


def test_processes_with_shares_of_a_whole_fill_one_folder(tmp_path: Path) -> None:
    for number in (1, 0):
        folder = ChunkFolder(tmp_path, {}, resume=True)
        folder.compute(WORK, squares, lambda done: None, share=(number, 2))
        if number:
            with pytest.raises(DataError, match="rows 0 to 4 cannot be read"):
                folder.gathered(WORK)
    assert np.array_equal(folder.gathered(WORK), squares(slice(0, 10)))


def test_devices_take_chunks_in_turn_and_one_that_fails_ends_all(tmp_path: Path) -> None:
    folder = ChunkFolder(tmp_path, {}, resume=False)
    both = threading.Barrier(2, timeout=30)

    def first(rows: slice) -> np.ndarray:
        # Neither goes on before the other has a chunk too.
        both.wait()
        return squares(rows)

    def failing(rows: slice) -> np.ndarray:
        both.wait()
        raise DataError("broken")

    with pytest.raises(DataError, match="broken"):
        folder.compute_side_by_side(Work("squares", 10, 1), [first, failing], lambda done: None)
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("squares-*.npy")}
    assert len(kept) == 1

    done: list[int] = []
    folder.compute_side_by_side(Work("squares", 10, 1), [squares] * 3, done.append)
    assert done == [1] * 10
    assert np.array_equal(folder.gathered(Work("squares", 10, 1)), squares(slice(0, 10)))
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


def test_another_plan_is_refused_with_what_differs(tmp_path: Path) -> None:
    ChunkFolder(tmp_path, {"seed": 1, "margin": 0.24}, resume=False)
    with pytest.raises(SettingsError, match="earlier run; go on with --resume"):
        ChunkFolder(tmp_path, {"seed": 1, "margin": 0.24}, resume=False)
    with pytest.raises(SettingsError, match=r"made with seed 1, now it is 2"):
        ChunkFolder(tmp_path, {"seed": 2, "margin": 0.24}, resume=True)
    (tmp_path / "plan.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"plan\.json cannot be read"):
        ChunkFolder(tmp_path, {}, resume=True)


def test_a_full_disk_loses_nothing_that_is_finished(tmp_path: Path) -> None:
    folder = ChunkFolder(tmp_path, {}, resume=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def chunk(rows: slice) -> np.ndarray:
        if rows.start == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        return squares(rows)

    try:
        with pytest.raises(StorageError, match=r"What is finished is kept.*--resume"):
            folder.compute(WORK, chunk, lambda done: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["plan.json", "squares-000000.npy"]
    first = (tmp_path / "squares-000000.npy").stat().st_mtime_ns
    folder.compute(WORK, squares, lambda done: None)
    assert (tmp_path / "squares-000000.npy").stat().st_mtime_ns == first
    assert np.array_equal(folder.gathered(WORK), squares(slice(0, 10)))


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_chunk_that_others_have_damaged_is_named(tmp_path: Path, content: bytes | None) -> None:
    folder = ChunkFolder(tmp_path, {}, resume=False)
    folder.compute(WORK, squares, lambda done: None)
    damaged = tmp_path / "squares-000001.npy"
    if content is None:
        np.save(damaged, squares(slice(0, 2)))
    else:
        damaged.write_bytes(content)
    with pytest.raises(DataError, match=r"squares-000001\.npy.*delete the file and --resume"):
        folder.gathered(WORK)
