from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from clrelkt.text import sentence_starts, split_sentences


def test_sentences_are_cut_at_full_stops_of_several_scripts() -> None:
    assert split_sentences("One is here. Two is there!  Three?") == [
        "One is here.",
        "Two is there!",
        "Three?",
    ]
    assert split_sentences("यह एक है। वह दो है।", "hi") == ["यह एक है।", "वह दो है।"]
    assert split_sentences("这是一。那是二。", "zh") == ["这是一。", "那是二。"]


def test_no_text_has_no_sentences() -> None:
    assert split_sentences("  ") == []
    assert sentence_starts("") == []


@given(st.text(max_size=200))
def test_starts_cut_the_text_without_loss(text: str) -> None:
    starts = sentence_starts(text)
    assert starts == sorted(set(starts))
    assert starts[:1] == ([0] if text else [])
    pieces = [text[a:b] for a, b in pairwise([*starts, len(text)])]
    assert "".join(pieces) == text
    assert [piece.strip() for piece in pieces if piece.strip()] == split_sentences(text)
