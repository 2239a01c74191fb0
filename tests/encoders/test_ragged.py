from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from clrelkt.encoders import RaggedBatch
from clrelkt.encoders.ragged import token_budget_slices

texts_of_ids = st.lists(st.lists(st.integers(0, 99), max_size=8), max_size=8)


def as_lists(batch: RaggedBatch) -> list[list[int]]:
    return [part.tolist() for part in batch.token_ids.split(batch.lengths.tolist())]


@given(texts_of_ids)
def test_from_lists_keeps_every_text(ids: list[list[int]]) -> None:
    batch = RaggedBatch.from_lists(ids)
    assert as_lists(batch) == ids
    assert len(batch) == len(ids)
    assert batch.tokens == sum(map(len, ids))
    assert batch.token_ids.dtype == batch.lengths.dtype == torch.int64


@given(texts_of_ids)
def test_text_of_token_names_the_text(ids: list[list[int]]) -> None:
    expected = [position for position, text in enumerate(ids) for _ in text]
    assert RaggedBatch.from_lists(ids).text_of_token.tolist() == expected


@given(texts_of_ids.filter(bool), st.data())
def test_select_takes_texts_in_the_order_asked_for(
    ids: list[list[int]], data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=12))
    batch = RaggedBatch.from_lists(ids).select(torch.tensor(chosen, dtype=torch.int64))
    assert as_lists(batch) == [ids[position] for position in chosen]


def test_to_keeps_the_texts() -> None:
    batch = RaggedBatch.from_lists([[1, 2], [3]]).to("cpu")
    assert as_lists(batch) == [[1, 2], [3]]


@given(st.lists(st.integers(0, 20), max_size=30), st.integers(1, 30))
def test_slices_cover_every_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    slices = list(token_budget_slices(lengths, budget))
    covered = [position for run in slices for position in range(run.start, run.stop)]
    assert covered == list(range(len(lengths)))
    for run in slices:
        assert run.stop > run.start
        assert sum(lengths[run]) <= budget or run.stop == run.start + 1


@given(st.lists(st.integers(0, 20), max_size=30), st.integers(1, 30))
def test_no_slice_could_take_the_next_text(lengths: list[int], budget: int) -> None:
    slices = list(token_budget_slices(lengths, budget))
    for run in slices[:-1]:
        assert sum(lengths[run.start : run.stop + 1]) > budget


def test_slices_by_hand() -> None:
    assert list(token_budget_slices([3, 3, 9, 1, 5], 6)) == [
        slice(0, 2),
        slice(2, 3),
        slice(3, 5),
    ]
