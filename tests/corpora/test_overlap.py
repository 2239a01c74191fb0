from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clrelkt.corpora import Corpus, Document, Passage, load_corpus, shared_documents
from clrelkt.errors import SettingsError


def corpus(**texts: str) -> Corpus:
    documents = tuple(
        Document(title, title, (Passage(f"{title}#0", title, text),))
        for title, text in texts.items()
    )
    return Corpus("made", (), documents)


def longest_run(one: list[str], other: list[str]) -> int:
    """The longest common run, by trying every pair of places."""
    return max(
        (
            next(
                (n for n, (a, b) in enumerate(zip(one[i:], other[j:], strict=False)) if a != b),
                min(len(one) - i, len(other) - j),
            )
            for i in range(len(one))
            for j in range(len(other))
        ),
        default=0,
    )


words = st.lists(st.sampled_from(["a", "b", "c"]), max_size=12)


@given(words, words, st.integers(1, 5))
def test_the_run_is_the_longest_that_both_have(
    one: list[str], other: list[str], shingle: int
) -> None:
    found = shared_documents(corpus(X=" ".join(one)), corpus(Y=" ".join(other)), shingle=shingle)
    expected = longest_run(one, other)
    assert [overlap.words for overlap in found] == ([expected] if expected >= shingle else [])
    for overlap in found:
        assert f" {overlap.text} " in f" {' '.join(one)} "
        assert f" {overlap.text} " in f" {' '.join(other)} "


def test_case_punctuation_and_accents_do_not_count() -> None:
    (found,) = shared_documents(
        corpus(X="So: the CAFÉ was\u00a0closed."), corpus(Y="The cafe, was closed"), shingle=4
    )
    assert (found.words, found.text) == (4, "the cafe was closed")
    assert not found.same_title


def test_a_word_with_vowel_signs_is_one_word() -> None:
    assert not shared_documents(corpus(X="हिन्दी"), corpus(Y="हिन्दी है"), shingle=2)


def test_a_title_alone_is_enough() -> None:
    (found,) = shared_documents(corpus(Prime_number="a b"), corpus(**{"Prime Number": "c d"}))
    assert (found.same_title, found.words, found.passage_ids) == (True, 0, ())


def test_a_run_does_not_go_over_the_end_of_a_passage() -> None:
    whole = corpus(X="one two three four")
    parts = (Passage("Y#0", "Y", "one two"), Passage("Y#1", "Y", "three four"))
    assert not shared_documents(whole, Corpus("made", (), (Document("Y", "Y", parts),)), shingle=3)


def test_a_run_of_no_words() -> None:
    with pytest.raises(SettingsError, match="shingle 0"):
        shared_documents(corpus(), corpus(), shingle=0)


def test_what_mlqa_shares_with_xquad(data_folder: Path) -> None:
    mlqa, xquad = load_corpus("mlqa"), load_corpus("xquad")
    found = shared_documents(mlqa, xquad)
    titles = {overlap.title for overlap in found if overlap.same_title}
    assert titles == {"Prime number", "Harvard University"}
    # Sentences of the United States census stand in articles on counties and cities alike.
    counties = (
        "Jim Wells County, Texas",
        "Macoupin County, Illinois",
        "Elko County, Nevada",
        "White Pine County, Nevada",
    )
    others = {overlap.title: overlap.other_title for overlap in found if not overlap.same_title}
    assert others == dict.fromkeys(counties, "Fresno,_California")
    longest = {overlap.title: overlap.words for overlap in found}
    assert longest["Prime number"] == 14
    assert longest["Elko County, Nevada"] == 17
    assert longest["Harvard University"] == 0
    kept = mlqa.without_documents(titles)
    assert len(mlqa.documents) - len(kept.documents) == 7
    assert not {overlap.title for overlap in shared_documents(kept, xquad)} & titles


def test_the_bundled_corpus_shares_nothing(data_folder: Path) -> None:
    bundled = load_corpus("bundled")
    for name in ("mlqa", "xquad"):
        assert not shared_documents(bundled, load_corpus(name))
