from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from clrelkt.corpora.model import Corpus
from clrelkt.errors import DataError, SettingsError
from clrelkt.mining import (
    Barriers,
    DenseMiner,
    DenseMining,
    DenseNegatives,
    mine_dense,
    mine_with_encoder,
)


def problem(seed: int) -> tuple[torch.Tensor, torch.Tensor, Barriers]:
    """Random vectors, some equal, over two pools, with documents of several candidates."""
    rng = np.random.default_rng(seed)
    questions, candidates = int(rng.integers(1, 30)), int(rng.integers(2, 40))
    vectors = [
        torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((n, 5))), dim=1).float()
        for n in (questions, candidates)
    ]
    # Equal vectors need not be equal texts here, so that each rule is seen by itself.
    text, same = (torch.from_numpy(rng.integers(0, candidates, candidates)) for _ in range(2))
    vectors[1] = vectors[1][same]
    pools = torch.from_numpy(rng.random((2, candidates)) < 0.7)
    gold = torch.from_numpy(rng.integers(0, candidates, questions))
    pool = torch.from_numpy(rng.integers(0, 2, questions))
    document = torch.from_numpy(rng.integers(0, max(1, candidates // 3), candidates))
    return vectors[0], vectors[1], Barriers(gold, pool, pools, document, text)


def qualifying(
    questions: torch.Tensor, candidates: torch.Tensor, barriers: Barriers, settings: DenseMining
) -> list[dict[bool, list[int]]]:
    """For each question the hard (True) and semi-hard (False) candidates, nearest first."""
    found = []
    for number in range(len(questions)):
        anchor = questions[number].double().numpy()

        def distance(row: int, anchor: Any = anchor) -> float:
            other = candidates[row].double().numpy()
            if settings.distance == "euclidean":
                return float(((anchor - other) ** 2).sum())
            return float(1 - anchor @ other)

        gold = int(barriers.gold[number])
        least = -np.inf
        if settings.false_negative_ratio is not None:
            cosine = float(questions[number].double() @ candidates[gold].double())
            least = 1 - (cosine - (1 - settings.false_negative_ratio) * abs(cosine))
            least = (2 * least if settings.distance == "euclidean" else least) - 1e-6
        allowed = [
            row
            for row in range(len(candidates))
            if distance(row) > least
            and barriers.pools[barriers.pool[number], row]
            and barriers.document[row] != barriers.document[gold]
            and barriers.text[row] != barriers.text[gold]
        ]
        near = distance(gold)
        far = near + settings.margin
        # Rounded, so that equal vectors tie here as they do there.
        ordered = sorted(allowed, key=lambda row: (round(distance(row), 5), row))
        found.append(
            {
                True: [row for row in ordered if distance(row) < near - 1e-6],
                False: [row for row in ordered if near + 1e-6 < distance(row) < far - 1e-6],
            }
        )
    return found


def chosen(mined: DenseNegatives, questions: int) -> list[dict[bool, list[int]]]:
    rows: list[dict[bool, list[int]]] = [{True: [], False: []} for _ in range(questions)]
    triples = zip(
        mined.question.tolist(), mined.candidate.tolist(), mined.hard.tolist(), strict=True
    )
    for question, candidate, hard in triples:
        rows[question][hard].append(candidate)
    return rows


some_settings = st.builds(
    DenseMining,
    hard=st.integers(0, 3),
    semi_hard=st.integers(1, 3),
    margin=st.sampled_from([0.05, 0.24, 1.0]),
    distance=st.sampled_from(["cosine", "euclidean"]),
    false_negative_ratio=st.sampled_from([None, 0.9, 1.3]),
)


@hypothesis_settings(deadline=None)
@given(st.integers(0, 2**32 - 1), some_settings)
def test_the_nearest_are_what_a_loop_finds(seed: int, settings: DenseMining) -> None:
    settings = replace(settings, choose="nearest")
    questions, candidates, barriers = problem(seed)
    mined = mine_dense(questions, candidates, barriers, settings, np.random.default_rng(0))
    expected = [
        {True: kinds[True][: settings.hard], False: kinds[False][: settings.semi_hard]}
        for kinds in qualifying(questions, candidates, barriers, settings)
    ]
    assert chosen(mined, len(questions)) == expected


@hypothesis_settings(deadline=None)
@given(st.integers(0, 2**32 - 1), some_settings)
def test_random_ones_qualify_and_fill_the_quota(seed: int, settings: DenseMining) -> None:
    questions, candidates, barriers = problem(seed)
    mined = mine_dense(questions, candidates, barriers, settings, np.random.default_rng(seed))
    expected = qualifying(questions, candidates, barriers, settings)
    for found, possible in zip(chosen(mined, len(questions)), expected, strict=True):
        for hard, quota in ((True, settings.hard), (False, settings.semi_hard)):
            assert set(found[hard]) <= set(possible[hard])
            assert len(set(found[hard])) == len(found[hard]) == min(quota, len(possible[hard]))


@hypothesis_settings(deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["nearest", "random"]),
    st.sampled_from([5, 17, 64, 500]),
)
def test_the_budget_changes_nothing(seed: int, choose: Any, budget: int) -> None:
    settings = DenseMining(hard=2, semi_hard=2, choose=choose)
    questions, candidates, barriers = problem(seed)
    whole, cut = (
        mine_dense(
            questions, candidates, barriers, settings, np.random.default_rng(seed), budget=numbers
        )
        for numbers in (2**20, budget)
    )
    assert torch.equal(whole.question, cut.question)
    assert torch.equal(whole.candidate, cut.candidate)
    assert torch.equal(whole.hard, cut.hard)


def test_every_candidate_that_qualifies_is_drawn_about_as_often() -> None:
    angles = torch.tensor([0.5, *np.linspace(0.1, 0.4, 8)])
    candidates = torch.stack((angles.cos(), angles.sin()), dim=1)
    rows = torch.arange(9)
    barriers = Barriers(
        torch.zeros(4000, dtype=torch.int64),
        torch.zeros(4000, dtype=torch.int64),
        torch.ones((1, 9), dtype=torch.bool),
        rows,
        rows,
    )
    anchors = torch.tensor([[1.0, 0.0]]).expand(4000, 2)
    settings = DenseMining(hard=1, semi_hard=0)
    mined = mine_dense(anchors, candidates, barriers, settings, np.random.default_rng(3))
    counts = torch.bincount(mined.candidate, minlength=9)
    assert counts[0] == 0
    assert counts[1:].sum() == 4000
    assert counts[1:].min() > 400


def test_the_seed_decides(corpus: Corpus) -> None:
    questions, candidates, barriers = problem(5)
    settings = DenseMining(hard=1, semi_hard=1, margin=1.0)
    draws = [
        mine_dense(questions, candidates, barriers, settings, np.random.default_rng(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0].candidate, draws[1].candidate)
    assert not torch.equal(draws[0].candidate, draws[2].candidate)


def test_equal_distances_are_neither_hard_nor_semi_hard() -> None:
    candidates = torch.tensor([[0.6, 0.8], [0.6, -0.8], [0.8, 0.6], [0.0, 1.0]])
    rows = torch.arange(4)
    barriers = Barriers(
        torch.tensor([0]), torch.tensor([0]), torch.ones((1, 4), dtype=torch.bool), rows, rows
    )
    # Distances from (1, 0): .4 (gold), .4 (the same), .2 (hard), 1 (too far).
    mined = mine_dense(
        torch.tensor([[1.0, 0.0]]), candidates, barriers, DenseMining(3, 3), np.random.default_rng()
    )
    assert (mined.candidate.tolist(), mined.hard.tolist()) == ([2], [True])


def test_nothing_to_mine_for_is_no_pairs() -> None:
    none = torch.empty(0, dtype=torch.int64)
    barriers = Barriers(none, none, torch.ones((1, 2), dtype=torch.bool), none, none)
    empty = mine_dense(
        torch.empty((0, 2)), torch.eye(2), barriers, DenseMining(), np.random.default_rng(0)
    )
    assert len(empty) == 0


def circle(**degrees: float) -> dict[str, list[float]]:
    return {
        text: [float(np.cos(np.deg2rad(angle))), float(np.sin(np.deg2rad(angle)))]
        for text, angle in degrees.items()
    }


@pytest.fixture
def placed(table_encoder: Any, corpus: Corpus) -> Any:
    """All texts of the corpus on a circle: 1 - cos(degrees from the question) is the distance."""
    angle = {
        "who makes honey in hives": 0,
        "what do bears do in winter": 100,
        "wer macht Honig": 0,
        "was tun Bären im Winter": 100,
        "was ist hart": 180,
        "что делают медведи": 100,
        "bees make honey in hives": 30,
        "a queen lives in the hive": 10,
        "bears eat honey and fish": 20,
        "bears sleep in winter": 80,
        "the copy says more on wax": 45,
        "rocks are hard as iron": 25,
        "lava becomes rock": 90,
    }
    whole = {"bees": 30, "bears": 20, "copy": 40, "rocks": 100}
    angle |= {d.text: whole[d.id] for d in corpus.documents}
    return table_encoder(circle(**angle))


def test_passages_of_the_gold_document_and_its_text_are_never_negatives(
    placed: Any, corpus: Corpus
) -> None:
    settings = DenseMining(9, 9, margin=0.5, granularity="passage", choose="nearest")
    english = [q for q in corpus.questions if q.id in {"en:0", "de:0"}]
    mined = mine_with_encoder(placed, english, corpus, settings, seed=0)
    rows = list(zip(mined.question_ids, mined.positive_ids, mined.negative_ids, strict=True))
    # Gold bees#0 at 30 degrees (.134); hard 20 and, in the English pool alone, 25; semi-hard up
    # to .634, which is 68.5 degrees: 45. bees#1 (10) is gold's own, copy#0 has gold's text.
    assert rows == [
        ("en:0", "bees#0", "bears#0"),
        ("en:0", "bees#0", "rocks#0"),
        ("en:0", "bees#0", "copy#1"),
        ("de:0", "bees#0", "bears#0"),
        ("de:0", "bees#0", "copy#1"),
    ]
    assert mined.left_out == {}


def test_documents_are_mined_as_whole_texts(placed: Any, corpus: Corpus) -> None:
    settings = DenseMining(1, 1, margin=0.15, choose="nearest")
    mined = mine_with_encoder(placed, corpus.questions[:2], corpus, settings, seed=0)
    rows = list(zip(mined.question_ids, mined.positive_ids, mined.negative_ids, strict=True))
    # en:0 at 0: bees 30 (gold), bears 20 is nearer, copy 40 (.234) is within .134 + .15.
    # en:1 at 100: bears 20 (gold, .826); rocks at 100 is nearest; beyond it none within .976.
    assert rows == [
        ("en:0", "bees", "bears"),
        ("en:0", "bees", "copy"),
        ("en:1", "bears", "rocks"),
    ]


def test_questions_without_a_negative_are_left_out_and_counted(placed: Any, corpus: Corpus) -> None:
    settings = DenseMining(1, 0, granularity="passage")
    asked = [q for q in corpus.questions if q.id == "en:1"]
    # en:1 stands at 100 degrees: gold bears#1 at 80, lava at 90 is hard.
    assert mine_with_encoder(placed, asked, corpus, settings, 0).negative_ids == ("rocks#1",)
    german = [q for q in corpus.questions if q.id == "de:1"]
    mined = mine_with_encoder(placed, german, corpus, settings, 0)
    assert len(mined) == 0
    assert mined.left_out == {"no negative": 1}


def test_each_distinct_text_is_encoded_once(placed: Any, corpus: Corpus) -> None:
    miner = DenseMiner(corpus.questions, corpus, DenseMining(granularity="passage"))
    miner(placed, seed=0)
    assert set(placed.encoded.values()) == {1}
    assert set(miner.question_texts) == {q.text for q in corpus.questions}
    assert ("bees make honey in hives", "passage") in placed.encoded
    assert ("was ist hart", "question") in placed.encoded


def test_vectors_can_be_handed_in(placed: Any, corpus: Corpus) -> None:
    miner = DenseMiner(corpus.questions, corpus, DenseMining())
    calls = []

    def encode(texts: Any, kind: Any) -> np.ndarray:
        calls.append((len(texts), kind))
        return np.asarray(placed.encode(texts, kind))

    assert miner(placed, 0, encode) == miner(placed, 0)
    assert calls == [(6, "question"), (4, "passage")]


def test_a_gold_outside_the_pool_is_an_error(corpus: Corpus) -> None:
    lost = replace(corpus, pools={"de": ("bears", "copy")})
    with pytest.raises(DataError, match="'de:0': its gold document 'bees'"):
        DenseMiner(lost.questions, lost, DenseMining())


@pytest.mark.parametrize(
    "wrong",
    [
        {"hard": -1},
        {"hard": 0, "semi_hard": 0},
        {"margin": 0.0},
        {"margin": float("nan")},
        {"distance": "manhattan"},
        {"granularity": "sentence"},
        {"choose": "hardest"},
        {"false_negative_ratio": 0.0},
        {"false_negative_ratio": float("nan")},
    ],
)
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        DenseMining(**wrong)
