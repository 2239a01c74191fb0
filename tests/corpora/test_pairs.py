# ruff: noqa: RUF001
from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clrelkt.corpora.pairs import (
    SentencePairs,
    find_pairs,
    hold_out,
    pair_languages,
    read_pairs,
    thin_pairs,
    write_pairs,
)
from clrelkt.errors import ClrelktError, CorpusError, DataError, UnknownNameError


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def pairs_of(*rows: tuple[str, str, str]) -> SentencePairs:
    english, other, kinds = zip(*rows, strict=True)
    return SentencePairs("el", english, other, ("test",) * len(rows), kinds)


@pytest.mark.parametrize(
    "name",
    ["el/sentences.tsv", "el/sentences.tsv.gz", "news.el.tsv", "news.en-el.tsv.gz", "el-en.tsv"],
)
def test_tsv_language_is_told_by_the_name(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "cat\tγάτα\ttatoeba", "dog\tσκύλος", "", "cat\tγάτα\tzzz")
    pairs = read_pairs(path)
    assert pairs.language == "el"
    assert pairs.english == ("cat", "dog")
    assert pairs.other == ("γάτα", "σκύλος")
    assert pairs.sources[0] == "tatoeba"
    assert pairs.kinds == ("sentences", "sentences")
    assert len(pairs) == 2


def test_the_stem_is_the_source_where_there_is_no_third_column(tmp_path: Path) -> None:
    assert read_pairs(write(tmp_path / "news.en-el.tsv", "cat\tγάτα")).sources == ("news",)


@pytest.mark.parametrize("given_name", ["news.en-el.el", "news.en-el.en", "news.en-el"])
def test_moses_files_by_either_name_or_their_prefix(tmp_path: Path, given_name: str) -> None:
    write(tmp_path / "news.en-el.en", "cat", "line\u2028separator", "", "dog")
    write(tmp_path / "news.en-el.el", "γάτα", "γραμμή", "", "σκύλος")
    pairs = read_pairs(tmp_path / given_name)
    assert pairs.language == "el"
    assert pairs.english == ("cat", "line\u2028separator", "dog")
    assert pairs.other == ("γάτα", "γραμμή", "σκύλος")
    assert set(pairs.sources) == {"news"}


def test_a_folder_of_languages_and_kinds(tmp_path: Path) -> None:
    write(tmp_path / "el/sentences.tsv.gz", "cat\tγάτα\ttatoeba")
    write(tmp_path / "el/dict.tsv", "dog\tσκύλος\tomw", "cat\tγάτα\tomw")
    write(tmp_path / "ro/docs.tsv", "cat\tpisică\tman")
    write(tmp_path / "own.en", "bird")
    write(tmp_path / "own.vi", "chim")
    assert pair_languages([tmp_path]) == ("el", "ro", "vi")
    found = find_pairs([tmp_path], ["ro", "el", "vi"])
    assert list(found) == ["ro", "el", "vi"]
    kinds = dict(zip(found["el"].english, found["el"].kinds, strict=True))
    assert kinds == {"cat": "sentences", "dog": "dict"}
    assert found["ro"].kinds == ("docs",)
    assert found["vi"].other == ("chim",)


def test_a_file_without_a_language_is_of_the_one_that_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.tsv", "cat\tpaka")
    assert find_pairs([path], ["sw"])["sw"].other == ("paka",)
    assert read_pairs(path, "sw").language == "sw"
    with pytest.raises(DataError, match="does not tell the language"):
        read_pairs(path)


def test_parallel_stands_for_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLRELKT_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no sentence pairs on this machine"):
        find_pairs([Path("parallel")], ["el"])
    write(tmp_path / "parallel/el/sentences.tsv", "cat\tγάτα")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert find_pairs([Path("parallel")], ["el"])["el"].english == ("cat",)


def test_every_fault_is_found_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "x.el.tsv", "cat γάτα", "dog\tσκύλος", "bird\t ", "a\tb\tc\td")
    with pytest.raises(CorpusError) as caught:
        read_pairs(path)
    found = [(fault.record, fault.message.split(";")[0]) for fault in caught.value.faults]
    assert sorted(found) == [
        ("line 1", "has no tab"),
        ("line 3", "the other side is empty"),
        ("line 4", "has 4 columns"),
    ]
    assert str(path) in str(caught.value)


def test_bad_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.el.tsv"
    path.write_bytes(b"cat\tx\ndog\t\xff\n")
    with pytest.raises(CorpusError, match=r"line 2: is not UTF-8"):
        read_pairs(path)


def test_truncated_gzip(tmp_path: Path) -> None:
    path = write(tmp_path / "x.el.tsv.gz", *(f"cat {n}\tγάτα {n}" for n in range(99)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(CorpusError, match="cut short"):
        read_pairs(path)
    path.write_bytes(b"no gzip at all")
    with pytest.raises(CorpusError, match="cannot be read"):
        read_pairs(path)


def test_moses_files_of_unequal_length(tmp_path: Path) -> None:
    write(tmp_path / "x.en", "cat", "dog")
    write(tmp_path / "x.el", "γάτα")
    with pytest.raises(CorpusError, match=r"line 2: has 1 lines, x\.en has 2"):
        read_pairs(tmp_path / "x")


@pytest.mark.parametrize(
    ("code", "error"), [("xx", UnknownNameError), ("en", UnknownNameError), ("ro", DataError)]
)
def test_languages_that_cannot_be(tmp_path: Path, code: str, error: type[ClrelktError]) -> None:
    path = write(tmp_path / "x.el.tsv", "cat\tγάτα")
    with pytest.raises(error, match=repr(code)):
        find_pairs([path], [code])


def test_paths_that_are_missing(tmp_path: Path) -> None:
    for name in ("none.el.tsv", "none.el", "none"):
        with pytest.raises(DataError, match="none"):
            find_pairs([tmp_path / name], ["el"])


def test_held_out_pairs_share_no_side_with_the_rest() -> None:
    pairs = pairs_of(
        ("The cat", "Η γάτα", "sentences"),
        ("the  CAT", "Μια γάτα", "ui_docs_po"),
        ("A cat", "η γάτα", "dict"),
        ("dog", "σκύλος", "dict"),
    )
    rest, held = hold_out(pairs, 1)
    assert held.english == ("The cat",)
    assert rest.english == ("dog",)


def test_held_out_pairs_are_distinct_sentences() -> None:
    pairs = pairs_of(
        ("one", "α", "sentences"),
        ("one", "β", "sentences"),
        ("two", "α", "sentences"),
        ("word", "λέξη", "dict"),
    )
    with pytest.raises(DataError, match="only"):
        hold_out(pairs, 3)
    _, held = hold_out(pairs, 1)
    assert held.kinds == ("sentences",)


@given(st.integers(0, 3), st.randoms(use_true_random=False), st.integers(0, 30))
def test_held_out_pairs_do_not_depend_on_the_order(
    seed: int, shuffle: random.Random, count: int
) -> None:
    rows = [(f"en {n % 40}", f"el {n % 45}", "sentences") for n in range(60)]
    pairs = pairs_of(*rows)
    shuffle.shuffle(rows)
    rest, held = hold_out(pairs_of(*rows), count, seed)
    expected_rest, expected = hold_out(pairs, count, seed)
    assert (held.english, held.other) == (expected.english, expected.other)
    assert set(zip(rest.english, rest.other, strict=True)) == set(
        zip(expected_rest.english, expected_rest.other, strict=True)
    )
    assert len(set(held.english)) == len(set(held.other)) == len(held) == count
    assert not set(held.english) & set(rest.english)
    assert not set(held.other) & set(rest.other)


def test_seeds_draw_different_pairs() -> None:
    pairs = pairs_of(*((f"en {n}", f"el {n}", "sentences") for n in range(100)))
    assert hold_out(pairs, 10, 0)[1].english != hold_out(pairs, 10, 1)[1].english


def test_sides_of_unequal_length_are_refused() -> None:
    with pytest.raises(DataError, match="as many of each"):
        SentencePairs("el", ("a",), (), ("s",), ("sentences",))


def test_the_real_pairs(data_folder: Path) -> None:
    pairs = find_pairs([data_folder / "parallel"], ["vi"])["vi"]
    assert {kind: pairs.kinds.count(kind) // 1000 for kind in ("docs", "dict")} == {
        "docs": 3,
        "dict": 19,
    }
    rest, held = hold_out(pairs, 2000)
    assert len(held) == 2000
    assert len(rest) < len(pairs) - 2000


def test_thinned_pairs_depend_on_their_texts_alone_and_are_read_back(tmp_path: Path) -> None:
    count = 30
    whole = SentencePairs(
        "el",
        tuple(f"text {number}" for number in range(count)),
        tuple(f"κείμενο {number}" for number in range(count)),
        ("made",) * count,
        ("sentences",) * 20 + ("dict",) * 10,
    )
    thinned = thin_pairs(whole, {"sentences": 5})
    assert (thinned.kinds.count("sentences"), thinned.kinds.count("dict")) == (5, 10)
    turned = whole.select(range(count - 1, -1, -1))
    assert set(thin_pairs(turned, {"sentences": 5}).other) == set(thinned.other)
    assert set(thin_pairs(whole, {"sentences": 6}).other) > set(thinned.other)
    write_pairs(thinned, tmp_path)
    again = find_pairs([tmp_path], ["el"])["el"]
    found = zip(again.english, again.other, again.kinds, strict=True)
    assert set(found) == set(zip(thinned.english, thinned.other, thinned.kinds, strict=True))


def test_files_of_later_kinds_are_not_read(tmp_path: Path) -> None:
    for kind, line in (("sentences", "one\teins\n"), ("docs", "one\teins\ntwo\tzwei\n")):
        (tmp_path / f"{kind}.de.tsv").write_text(line, encoding="utf-8")
    (tmp_path / "dict.de.tsv").write_text("broken\n", encoding="utf-8")
    found = {
        kind: find_pairs([tmp_path], ["de"], kinds=(kind,))["de"] for kind in ("sentences", "docs")
    }
    assert found["sentences"].other == ("eins",)
    assert dict(zip(found["docs"].other, found["docs"].kinds, strict=True)) == {
        "eins": "sentences",
        "zwei": "docs",
    }
    with pytest.raises(CorpusError):
        find_pairs([tmp_path], ["de"])
