from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clrelkt.corpora.loading import load_corpus
from clrelkt.corpora.model import Corpus, Document, FixedSplit, Question
from clrelkt.corpora.splits import Split, SplitBy, split_corpus, take_split
from clrelkt.errors import DataError, UnknownNameError


def corpus(
    documents: int, per_document: int, languages: tuple[str, ...] = ("en", "de"), **more: Any
) -> Corpus:
    return Corpus(
        name="made",
        questions=tuple(
            Question(f"{code}:{d}-{n}", code, f"{d} {n}?", f"d{d}", f"d{d}#0", (), f"{d}-{n}")
            for code in languages
            for d in range(documents)
            for n in range(per_document)
        ),
        documents=tuple(Document(f"d{d}", f"d{d}", ()) for d in range(documents)),
        **more,
    )


def ids(part: Corpus) -> set[str]:
    return {question.parallel_id for question in part.questions}


@given(
    documents=st.integers(1, 20),
    per_document=st.integers(1, 5),
    seed=st.integers(0, 2**32),
    by=st.sampled_from(get_args(SplitBy)),
)
def test_every_question_is_on_one_side_with_its_translations(
    documents: int, per_document: int, seed: int, by: SplitBy
) -> None:
    whole = corpus(documents, per_document)
    splits = split_corpus(whole, by=by, seed=seed)
    sides = [splits.train, splits.dev, splits.test]
    assert sum(len(side.questions) for side in sides) == len(whole.questions)
    assert sum(len(ids(side)) for side in sides) == documents * per_document
    assert set().union(*(set(side.questions) for side in sides)) == set(whole.questions)
    assert all(side.documents == whole.documents for side in sides)
    if by == "document":
        held = [{question.document_id for question in side.questions} for side in sides]
        assert sum(map(len, held)) == documents
    turned = whole.with_questions(whole.questions[::-1])
    assert [ids(side) for side in sides] == [
        ids(getattr(split_corpus(turned, by=by, seed=seed), name))
        for name in ("train", "dev", "test")
    ]


@pytest.mark.parametrize(
    ("by", "sizes"), [("question", (714, 238, 238)), ("document", (28, 8, 12))]
)
def test_sizes_of_a_corpus_like_xquad(by: SplitBy, sizes: tuple[int, ...]) -> None:
    whole = corpus(1190, 1) if by == "question" else corpus(48, 3)
    splits = split_corpus(whole, by=by, seed=1)
    assert (
        tuple(
            len({q.document_id for q in side.questions})
            for side in (splits.train, splits.dev, splits.test)
        )
        == sizes
    )


def test_a_seed_gives_this_very_split_everywhere() -> None:
    """Written down once: PCG64's bits may not change, whatever machine or numpy."""
    splits = split_corpus(corpus(10, 1), seed=0)
    assert ids(splits.test) == {"2-0", "3-0"}
    assert ids(splits.dev) == {"1-0", "8-0"}
    assert ids(split_corpus(corpus(10, 1), seed=1).test) != {"2-0", "3-0"}


def test_fewer_languages_do_not_change_the_sides() -> None:
    whole = corpus(30, 2)
    alone = split_corpus(whole.in_languages(["de"]), seed=5)
    assert ids(alone.test) == ids(split_corpus(whole, seed=5).test)


def test_a_fixed_split_is_kept() -> None:
    parts = {f"{n}-0": "test" if n < 4 else "unused" if n < 6 else "fit" for n in range(16)}
    fixed = FixedSplit(
        parts,  # type: ignore[arg-type]
        pools={"fit": {"de": ("d9",)}, "test": {"de": ("d1", "d2")}},
    )
    splits = split_corpus(corpus(16, 1, fixed_split=fixed), seed=2)
    assert ids(splits.test) == {"0-0", "1-0", "2-0", "3-0"}
    assert (len(ids(splits.train)), len(ids(splits.dev))) == (8, 2)
    assert not (ids(splits.train) | ids(splits.dev)) & {"4-0", "5-0"}
    assert splits.train.pools == {"de": ("d9",)}
    assert splits.test.pools == {"de": ("d1", "d2")}


def test_translations_tie_the_documents_of_one_article_together() -> None:
    """As in MLQA, where each language has its own copy of an article."""
    whole = Corpus(
        name="made",
        questions=tuple(
            Question(f"{code}:{a}-{n}", code, "?", f"{code}:{a}", None, (), f"{a}-{n}")
            for a in range(12)
            for n, codes in enumerate([("en", "de"), ("en", "es"), ("es",)])
            for code in codes
        ),
        documents=(),
    )
    splits = split_corpus(whole, by="document", seed=0)
    sides = [
        {parallel_id.split("-")[0] for parallel_id in ids(side)}
        for side in (splits.train, splits.dev, splits.test)
    ]
    assert [len(side) for side in sides] == [7, 2, 3]
    assert len(set().union(*sides)) == 12


def test_take_split() -> None:
    whole = corpus(10, 1)
    assert take_split(whole, "all") is whole
    assert ids(take_split(whole, "dev", seed=4)) == ids(split_corpus(whole, seed=4).dev)
    with pytest.raises(UnknownNameError, match="no split 'validation'"):
        take_split(whole, "validation")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="no split by 'title'"):
        take_split(whole, "dev", by="title")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="made has no test questions here: it has 2 questions"):
        take_split(corpus(1, 1), "test")


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_xquad(data_folder: Path, seed: int) -> None:
    whole = load_corpus(data_folder / "xquad")
    splits = split_corpus(whole, seed=seed)
    sides: dict[Split, Corpus] = {
        "train": splits.train,
        "dev": splits.dev,
        "test": splits.test,
    }
    assert [len(ids(side)) for side in sides.values()] == [714, 238, 238]
    for side in sides.values():
        for language in whole.languages:
            assert len(side.questions_in(language)) == len(ids(side))
