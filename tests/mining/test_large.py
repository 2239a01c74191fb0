from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import clrelkt.mining.large as module
from clrelkt.errors import DataError, SettingsError
from clrelkt.mining import Barriers, DenseMining, LargeMiner, mine_dense
from clrelkt.mining.keys import random_words
from clrelkt.mining.screening import PlainScreen, low_precision, score_error
from clrelkt.mining.selection import NO_KEY, Selection
from clrelkt.mining.similarity import on_grid


@dataclass(frozen=True, slots=True)
class Problem:
    """Clustered vectors: many ties, copies, documents of several candidates and texts twice."""

    questions: torch.Tensor
    candidates: torch.Tensor
    gold: torch.Tensor
    document: torch.Tensor
    text: torch.Tensor


def problem(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    asked, count, dimension = int(rng.integers(1, 40)), int(rng.integers(1, 300)), 6
    centres = rng.standard_normal((4, dimension))
    rows = centres[rng.integers(0, 4, count)] + rng.standard_normal((count, dimension)) * 0.4
    rows[rng.random(count) < 0.3] = rows[0]
    gold = rng.integers(0, count, asked)
    anchors = rows[gold] + rng.standard_normal((asked, dimension)) * rng.choice([0.05, 1.0])
    vectors = (
        torch.nn.functional.normalize(torch.from_numpy(v), dim=1).float() for v in (anchors, rows)
    )
    numbers = (gold, rng.integers(0, max(1, count // 3), count), rng.integers(0, count, count))
    return Problem(*vectors, *(torch.from_numpy(n) for n in numbers))


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small problems too are screened, and in several segments."""
    monkeypatch.setattr(module, "_FIRST", 7)


some_settings = st.builds(
    DenseMining,
    hard=st.integers(0, 3),
    semi_hard=st.integers(1, 3),
    margin=st.sampled_from([0.05, 0.24, 1.0]),
    distance=st.sampled_from(["cosine", "euclidean"]),
    false_negative_ratio=st.sampled_from([None, 0.9, 1.02]),
)


def mine(given: Problem, settings: DenseMining, **options: Any) -> torch.Tensor:
    miner = LargeMiner(given.candidates, given.document, given.text, settings, 3, **options)
    return miner.mine(given.questions, given.gold)


@hypothesis_settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), some_settings)
def test_the_nearest_are_those_of_exact_mining(seed: int, settings: DenseMining) -> None:
    settings = replace(settings, choose="nearest")
    given = problem(seed)
    one_pool = torch.zeros(len(given.gold), dtype=torch.int64)
    barriers = Barriers(
        given.gold,
        one_pool,
        torch.ones((1, len(given.candidates)), dtype=torch.bool),
        given.document,
        given.text,
    )
    exact = mine_dense(
        given.questions, given.candidates, barriers, settings, np.random.default_rng(0)
    )
    mined = mine(given, settings)
    question, place = torch.nonzero(mined >= 0, as_tuple=True)
    assert torch.equal(question, exact.question)
    assert torch.equal(mined[question, place], exact.candidate)
    assert torch.equal(place < settings.hard, exact.hard)


@hypothesis_settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), some_settings)
def test_random_ones_are_those_with_the_smallest_keys(seed: int, settings: DenseMining) -> None:
    given = problem(seed)
    mined = mine(given, settings)
    cpu = torch.device("cpu")
    row_keys = random_words(3, 1, 0, len(given.questions), cpu).tolist()
    column_keys = random_words(3, 2, 0, len(given.candidates), cpu).tolist()
    cosines = (on_grid(given.questions) @ on_grid(given.candidates).T).tolist()
    scale = 2 if settings.distance == "euclidean" else 1
    for number, row in enumerate(mined.tolist()):
        gold = int(given.gold[number])
        positive = cosines[number][gold]
        most = np.inf
        if settings.false_negative_ratio is not None:
            most = positive - (1 - settings.false_negative_ratio) * abs(positive)
        kinds: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        for other, cosine in enumerate(cosines[number]):
            same = given.document[other] == given.document[gold]
            if same or given.text[other] == given.text[gold] or cosine > most:
                continue
            entry = (row_keys[number] ^ column_keys[other], other)
            if cosine > positive:
                kinds[0].append(entry)
            elif 0 < scale * (positive - cosine) < settings.margin:
                kinds[1].append(entry)
        expected = []
        for kind, quota in zip(kinds, (settings.hard, settings.semi_hard), strict=True):
            numbers = [other for _, other in sorted(kind)[:quota]]
            expected += numbers + [-1] * (quota - len(numbers))
        assert row == expected


@hypothesis_settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["nearest", "random"]),
    st.integers(5, 50),
    st.integers(40, 300),
    st.sampled_from([60, 1000]),
)
def test_cuts_change_nothing(seed: int, choose: Any, rows: int, part: int, budget: int) -> None:
    given = problem(seed)
    settings = DenseMining(hard=2, semi_hard=2, choose=choose)
    memory = part * module._bytes_of_a_candidate(6, torch.device("cpu"))
    cut = LargeMiner(
        given.candidates.numpy(),
        given.document,
        given.text,
        settings,
        3,
        memory=memory,
        screen=PlainScreen(budget),
    )
    mined = [
        cut.mine(
            given.questions[start : start + rows], given.gold[start : start + rows], first=start
        )
        for start in range(0, len(given.questions), rows)
    ]
    assert torch.equal(torch.cat(mined), mine(given, settings))


def test_every_answer_of_a_question_is_barred() -> None:
    given = problem(8)
    settings = DenseMining(hard=3, semi_hard=3, margin=2.0, choose="nearest")
    miner = LargeMiner(given.candidates, given.document, given.text, settings, 0)
    first = miner.mine(given.questions, given.gold)
    taken = first[:, 3].clamp(min=0)
    golds = torch.stack((given.gold, taken), dim=1)
    second = miner.mine(given.questions, golds)
    for found, others in zip(second.tolist(), golds.tolist(), strict=True):
        for candidate in (number for number in found if number >= 0):
            assert given.document[candidate] not in given.document[others]
            assert given.text[candidate] not in given.text[others]
    assert not torch.equal(first, second)


def test_random_choice_is_even_and_differs_between_questions() -> None:
    angles = torch.tensor([0.5, *np.linspace(0.1, 0.4, 8)])
    candidates = torch.stack((angles.cos(), angles.sin()), dim=1)
    anchors = torch.tensor([[1.0, 0.0]]).expand(400, 2)
    numbers = torch.arange(9)
    counts = torch.zeros(9)
    for seed in range(50):
        miner = LargeMiner(candidates, numbers, numbers, DenseMining(1, 0), seed)
        drawn = miner.mine(anchors, torch.zeros(400, dtype=torch.int64))[:, 0]
        assert len(set(drawn.tolist())) > 3
        counts += torch.bincount(drawn, minlength=9)
    assert counts[0] == 0
    assert float(counts[1:].min()) > 0.7 * 400 * 50 / 8
    assert float(counts[1:].max()) < 1.3 * 400 * 50 / 8


def test_nothing_to_mine_among_one_candidate() -> None:
    one = torch.zeros(1, dtype=torch.int64)
    miner = LargeMiner(torch.tensor([[1.0, 0.0]]), one, one, DenseMining(), 0)
    assert miner.mine(torch.tensor([[0.0, 1.0]]), one).tolist() == [[-1, -1]]
    assert miner.mine(torch.empty((0, 2)), torch.empty(0, dtype=torch.int64)).shape == (0, 2)


@given(st.integers(0, 2**32 - 1), st.sampled_from([torch.float16, torch.bfloat16]))
@hypothesis_settings(deadline=None, max_examples=50)
def test_no_score_is_wrong_by_more_than_its_error(seed: int, kind: torch.dtype) -> None:
    """The bound, with vectors rounded as a GPU's screen rounds them."""
    given = problem(seed)
    sides = []
    for vectors in (given.questions, given.candidates):
        low = low_precision(vectors)
        rounded = low.vectors.to(kind).float()
        away = rounded[:, :6].double() - on_grid(vectors)
        sides.append(replace(low, vectors=rounded, error=torch.linalg.vector_norm(away, dim=1)))
    error = score_error(*sides).unsqueeze(1)
    exact = on_grid(given.questions) @ on_grid(given.candidates).T
    assert bool(((sides[0].vectors @ sides[1].vectors.T).double() - exact).abs().le(error).all())
    assert float(error.max()) < 0.01


def test_low_precision_knows_what_it_left_out() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(10, 70), dim=1)
    order = torch.randperm(10)
    low = low_precision(vectors, order)
    assert low.vectors.shape == (10, 128)
    assert torch.equal(low.vectors[:, :70], on_grid(vectors[order]).float())
    assert not low.vectors[:, 70:].any()
    assert float(low.error.max()) < 1e-6


@hypothesis_settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.booleans())
def test_a_selection_keeps_the_smallest_whatever_the_order(
    seed: int, quota: int, wide: bool
) -> None:
    rng = np.random.default_rng(seed)
    count = 700 if wide else 40
    row = np.sort(rng.integers(0, 3, count))
    key = rng.integers(0, 5, count)
    ids = rng.permutation(count)
    selection = Selection.empty(3, quota, torch.device("cpu"))
    batch = rng.integers(0, 3, count)
    for number in range(3):
        own = torch.from_numpy(np.flatnonzero(batch == number))
        tensors = (torch.from_numpy(values)[own] for values in (row, key, ids))
        selection.offer_pairs(*tensors)
    for number in range(3):
        best = sorted(zip(key[row == number], ids[row == number], strict=True))[:quota]
        empty = [(NO_KEY, -1)] * (quota - len(best))
        found = zip(selection.keys[number].tolist(), selection.ids[number].tolist(), strict=True)
        assert list(found) == best + empty


def wrong_inputs() -> Iterator[tuple[str, dict[str, Any]]]:
    unit = torch.eye(3)
    numbers = torch.arange(3)
    yield "question 11: its vector holds NaN", {"questions": unit[:2] * torch.nan}
    yield (
        "question 12: its vector has length 0",
        {"questions": unit[[0, 0]] * torch.tensor([[1.0], [0.0]])},
    )
    yield (
        "question 12: its vector has length 3",
        {"questions": unit[:2] * torch.tensor([[1.0], [3.0]])},
    )
    yield "dimension 3; encode both", {"questions": torch.eye(4)[:2]}
    yield r"question 12: its answers are candidates \[7\]", {"golds": torch.tensor([0, 7])}
    yield r"question 11: its answers are candidates \[-1\]", {"golds": torch.tensor([-1, 0])}
    yield (
        "candidate 1: its vector holds NaN",
        {"candidates": torch.tensor([[1.0, 0, 0], [torch.nan, 0, 0], [0, 0, 1]])},
    )
    yield "2 question vectors with the answers of 1", {"golds": torch.tensor([0])}
    yield "with 2 document numbers", {"document": numbers[:2]}


@pytest.mark.parametrize(("message", "changed"), list(wrong_inputs()))
def test_wrong_vectors_and_golds(message: str, changed: dict[str, Any]) -> None:
    given = {
        "candidates": torch.eye(3),
        "document": torch.arange(3),
        "questions": torch.eye(3)[:2],
        "golds": torch.tensor([0, 1]),
    } | changed
    with pytest.raises(DataError, match=message):
        LargeMiner(given["candidates"], given["document"], torch.arange(3), DenseMining(), 0).mine(
            given["questions"], given["golds"], first=11
        )


def test_too_little_memory_for_a_candidate() -> None:
    with pytest.raises(SettingsError, match="10 bytes of memory"):
        LargeMiner(torch.eye(3), torch.arange(3), torch.arange(3), DenseMining(), 0, memory=10)


@pytest.mark.skipif(find_spec("triton") is None, reason="pip install 'clrelkt[gpu]'")
def test_the_kernels_find_what_the_plain_screen_finds() -> None:
    """By Triton's interpreter; bench/dense_mining_scale.py does the same on a GPU."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(__file__).with_name("interpreted.py"))],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "as expected\n"), done.stderr


def test_a_screen_that_cannot_be() -> None:
    numbers = torch.arange(3)
    for screen, message in (("fused", "needs a GPU"), ("fast", "auto, plain, two-pass, fused")):
        with pytest.raises(SettingsError, match=message):
            LargeMiner(torch.eye(3), numbers, numbers, DenseMining(), 0, screen=screen)  # type: ignore[arg-type]
