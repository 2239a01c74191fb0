from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clrelkt.text.lexicon import Lexicon, learn_lexicon, switch_words

ENGLISH = ["The cat sleeps.", "The dog sleeps.", "A cat eats.", "A dog eats fish.", "Fish!"] * 4
GERMAN = ["Die Katze schläft.", "Der Hund schläft.", "Eine Katze isst.", "Ein Hund isst Fisch."]
LEXICON = Lexicon("de", MappingProxyType({"cat": "katze", "dog": "hund", "eats": "isst"}))


def test_words_are_learnt_from_translations() -> None:
    lexicon = learn_lexicon(ENGLISH, [*GERMAN, "Fisch!"] * 4, "de")
    assert lexicon.language == "de"
    wanted = {"cat": "katze", "dog": "hund", "fish": "fisch", "sleeps": "schläft", "eats": "isst"}
    assert {word: lexicon.entries.get(word) for word in wanted} == wanted


def test_words_that_nothing_speaks_for_are_left_out() -> None:
    lexicon = learn_lexicon(["alpha beta"], ["eins zwei"], "de", least_count=2.0)
    assert len(lexicon) == 0
    assert len(learn_lexicon([], [], "de")) == 0


def test_known_words_are_switched_and_the_rest_stays() -> None:
    rng = np.random.default_rng(0)
    mixed = switch_words("Where's the Cat, and who eats?", LEXICON, 1.0, rng)
    assert mixed == "Where's the katze, and who isst?"


def test_a_share_of_the_words_is_switched() -> None:
    rng = np.random.default_rng(0)
    words = switch_words(" ".join(["dog"] * 1000), LEXICON, 0.3, rng).split()
    assert 250 < words.count("hund") < 350
    assert words.count("hund") + words.count("dog") == 1000


@pytest.mark.parametrize(
    ("language", "expected"), [("zh", "the 猫吃, fish 猫"), ("hi", "the 猫 吃, fish 猫")]
)
def test_no_space_stands_between_words_of_a_language_that_writes_none(
    language: str, expected: str
) -> None:
    lexicon = Lexicon(language, MappingProxyType({"cat": "猫", "eats": "吃"}))
    rng = np.random.default_rng(0)
    assert switch_words("the cat eats, fish cat", lexicon, 1.0, rng) == expected


@given(st.text())
def test_a_text_without_known_words_stays(text: str) -> None:
    rng = np.random.default_rng(0)
    assert switch_words(text, Lexicon("de", MappingProxyType({})), 1.0, rng) == text
