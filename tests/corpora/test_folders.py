from __future__ import annotations

from pathlib import Path

import pytest

from clrelkt.corpora.folders import cache_root, data_root, data_roots, find_data, writable_folder
from clrelkt.errors import StorageError


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("CLRELKT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/clrelkt"


def test_the_cache_is_where_data_lie(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_root() == cache_root() == cache
    assert data_roots() == (cache,)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert data_root() == Path("/home/someone/.cache/clrelkt")


def test_the_named_folder_comes_first(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLRELKT_DATA", str(tmp_path / "data"))
    assert data_roots() == (tmp_path / "data", cache)
    assert find_data("x/file") is None
    (cache / "x").mkdir(parents=True)
    (cache / "x/file").write_bytes(b"")
    assert find_data("x/file") == cache / "x/file"
    assert find_data("x") == cache / "x"
    (tmp_path / "data/x").mkdir(parents=True)
    (tmp_path / "data/x/file.part").write_bytes(b"")
    assert find_data("x") == cache / "x"
    (tmp_path / "data/x/file").write_bytes(b"")
    assert find_data("x/file") == tmp_path / "data/x/file"


def test_the_cache_takes_what_the_named_folder_cannot(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLRELKT_DATA", str(tmp_path / "data"))
    assert writable_folder("x") == tmp_path / "data/x"
    (tmp_path / "data").chmod(0o555)
    assert writable_folder("y") == cache / "y"
    (tmp_path / "data").chmod(0o755)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("CLRELKT_DATA", str(tmp_path / "file"))
    assert writable_folder("x") == cache / "x"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="no folder for data can be written"):
        writable_folder("x")
