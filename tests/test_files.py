from __future__ import annotations

import json
import resource
import stat
from pathlib import Path

import pytest

from clrelkt.errors import StorageError
from clrelkt.files import (
    _swap,
    atomic_file,
    atomic_folder,
    storage_errors,
    write_json,
    write_text,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_write_text_makes_the_folders_and_leaves_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_text(path, "žluťoučký kůň\n")
    assert path.read_text(encoding="utf-8") == "žluťoučký kůň\n"
    assert mode(path) == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_write_json_is_readable_by_people(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"ไทย": [1, None]})
    assert "ไทย" in path.read_text(encoding="utf-8")
    assert path.read_text(encoding="utf-8").endswith("}\n")
    assert json.loads(path.read_text(encoding="utf-8")) == {"ไทย": [1, None]}


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, {1, 2})
    assert path.read_text() == "1\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with atomic_file(path) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_not_there_before_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"


@pytest.mark.parametrize("name", ["file/below", "file/below/that"])
def test_a_file_where_a_folder_should_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match=f"{tmp_path / 'file'}.*Free some space or name"):
        write_text(tmp_path / name, "new")
    with pytest.raises(StorageError, match=str(tmp_path / "file")), atomic_folder(tmp_path / name):
        pytest.fail("there is no folder to fill")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_where_the_file_should_be(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder"):
        write_text(tmp_path / "folder", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StorageError, match="File too large"):
            write_text(path, "new" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_folder_replaces_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").write_text("old")
    with atomic_folder(folder) as temporary:
        (temporary / "sub").mkdir(mode=0o700)
        (temporary / "sub" / "new").write_text("new")
        (temporary / "sub" / "new").chmod(0o600)
        assert (folder / "old").exists()
    assert [path.name for path in folder.iterdir()] == ["sub"]
    assert (folder / "sub" / "new").read_text() == "new"
    assert (mode(folder), mode(folder / "sub"), mode(folder / "sub" / "new")) == (
        0o755,
        0o755,
        0o644,
    )
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_old_folder(
    tmp_path: Path, error: type[BaseException]
) -> None:
    folder = tmp_path / "folder"
    write_text(folder / "old", "old")

    def fail() -> None:
        with atomic_folder(folder) as temporary:
            write_text(temporary / "new", "new")
            raise error

    with pytest.raises(error):
        fail()
    assert (folder / "old").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_is_taken_away_while_it_is_filled(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    write_text(folder / "old", "old")
    with pytest.raises(StorageError), atomic_folder(folder) as temporary:
        temporary.rename(tmp_path / "elsewhere")
    assert (folder / "old").read_text() == "old"


def test_a_swap_that_fails_halfway_puts_the_old_folder_back(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    write_text(folder / "old", "old")
    with pytest.raises(FileNotFoundError):
        _swap(tmp_path / "absent", folder)
    assert (folder / "old").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_storage_errors_names_the_place_the_reason_and_the_advice(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError) as caught,
        storage_errors(tmp_path, advice="Ask for a key"),
    ):
        (tmp_path / "absent").read_text()
    assert str(caught.value) == f"{tmp_path / 'absent'}: No such file or directory. Ask for a key"


def test_storage_errors_names_the_place_when_the_system_does_not(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"^{tmp_path}: odd"), storage_errors(tmp_path):
        raise OSError("odd")
