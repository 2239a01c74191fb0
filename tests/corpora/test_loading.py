from __future__ import annotations

from pathlib import Path

import pytest

from clrelkt.corpora.loading import load_corpus
from clrelkt.errors import DataError, UnknownNameError


def test_known_names_are_looked_up_in_the_data_folder(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLRELKT_DATA", str(data_folder))
    for name in ("xquad", "mlqa", "xorqa", "xquad-r"):
        assert load_corpus(name).name == name


def test_a_known_name_that_is_not_here_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLRELKT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="get it with: clrelkt data get xquad") as caught:
        load_corpus("xquad")
    assert str(tmp_path / "data") in str(caught.value)
    assert str(tmp_path / "cache/clrelkt") in str(caught.value)


def test_the_forms_of_a_path_are_told_apart(data_folder: Path) -> None:
    assert len(load_corpus(data_folder / "xquad/xquad.th.json").questions) == 1190
    assert load_corpus(data_folder / "xquad/xquad.th.json").languages == ("th",)
    assert len(load_corpus(str(data_folder / "mlqa/dev")).pools) == 7
    assert load_corpus(data_folder / "xorqa").documents == ()
    assert len(load_corpus(data_folder / "xquad_r").languages) == 11


def test_what_is_neither_a_name_nor_a_path() -> None:
    with pytest.raises(UnknownNameError, match="'xquat'; the known corpora are bundled xquad mlqa"):
        load_corpus("xquat")
    with pytest.raises(UnknownNameError, match="muse-8bit are weights, not a corpus"):
        load_corpus("muse-8bit")
