from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clrelkt.encoders import MuseEncoder
from clrelkt.errors import SettingsError
from clrelkt.text import Span, sentence_spans, split_passages

TEXT = "One two three. Four five. Six seven eight nine. Ten."


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def shown(text: str, spans: list[Span]) -> list[str]:
    return [text[span.start : span.stop].strip() for span in spans]


def test_sentences_are_joined_up_to_the_budget() -> None:
    assert shown(TEXT, split_passages(TEXT, "en", words, 5)) == [
        "One two three. Four five.",
        "Six seven eight nine. Ten.",
    ]


def test_an_overlap_repeats_whole_sentences_where_they_fit() -> None:
    assert shown(TEXT, split_passages(TEXT, "en", words, 6, overlap=2)) == [
        "One two three. Four five.",
        "Four five. Six seven eight nine.",
        "Ten.",
    ]


def test_a_long_sentence_is_cut_between_words_and_a_long_word_between_characters() -> None:
    assert shown(TEXT, split_passages(TEXT, "en", words, 3))[2:] == [
        "Six seven eight",
        "nine. Ten.",
    ]
    counted = split_passages("x" * 100, "en", lambda texts: [len(text) for text in texts], 30)
    assert [span.stop - span.start for span in counted] == [25, 25, 25, 25]


def test_thai_clauses_end_at_spaces() -> None:
    text = "ประเทศไทยเป็นประเทศที่ตั้งอยู่ในทวีปเอเชีย มีเมืองหลวงชื่อกรุงเทพมหานคร ปี 2325"
    assert shown(text, sentence_spans(text, "th")) == [
        "ประเทศไทยเป็นประเทศที่ตั้งอยู่ในทวีปเอเชีย",
        "มีเมืองหลวงชื่อกรุงเทพมหานคร ปี 2325",
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet=st.sampled_from("ab é。ก ข.\n!? 好𝒳"), max_size=120),
    st.integers(1, 12),
    st.data(),
)
def test_no_character_is_lost_and_no_passage_exceeds_the_budget(
    text: str, budget: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, budget - 1))
    characters = split_passages(text, "en", lambda texts: [len(t) for t in texts], budget, overlap)
    assert (characters[0].start if characters else 0) == 0
    assert (characters[-1].stop if characters else 0) == len(text)
    for before, after in itertools.pairwise(characters):
        assert before.start < after.start <= before.stop < after.stop
        assert before.stop - after.start <= overlap
    assert all(0 < span.stop - span.start <= budget for span in characters)


def test_a_budget_in_tokens_of_muse_holds_for_real_text(muse: MuseEncoder) -> None:
    text = " ".join(
        f"Sentence number {n} tells of the river and of its bridges." for n in range(60)
    )

    def count(texts: Sequence[str]) -> list[int]:
        return [int(length) - 2 for length in muse.tokenize(texts).lengths]

    spans = split_passages(text, "en", count, 64, 16)
    assert len(spans) > 10
    assert max(count([text[span.start : span.stop] for span in spans])) <= 64


@pytest.mark.parametrize(("budget", "overlap"), [(0, 0), (4, 4), (4, -1)])
def test_budgets_that_cannot_be_are_refused(budget: int, overlap: int) -> None:
    with pytest.raises(SettingsError, match=rf"{budget} tokens with an overlap of {overlap}"):
        split_passages("text", "en", words, budget, overlap)
