from __future__ import annotations

from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clrelkt.text import IcuWords, WordTokenizer


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Panthers' defense gave up 308 points.", ["the", "defense", "gave", "308"]),
        ("Große Straße", ["grosse", "strasse"]),
        ("ฉันกินข้าว", ["ฉัน", "กิน", "ข้าว"]),
        ("ทำงาน", ["ทำงาน"]),
        ("你好，世界！", ["你好", "世界"]),  # noqa: RUF001
        ("किताबें क्या हैं?", ["किताबें", "क्या", "हैं"]),
        ("ما هو هذا؟", ["ما", "هو", "هذا"]),
        ("Ai đã viết?", ["ai", "đã", "viết"]),
    ],
)
def test_words_of_several_scripts(text: str, words: list[str]) -> None:
    [found] = IcuWords().words([text])
    assert [word for word in found if word in words] == words
    assert not {"?", ".", "'", " ", "！", "؟"} & set(found)  # noqa: RUF001


def test_composed_and_decomposed_letters_are_the_same_word() -> None:
    composed, decomposed = IcuWords().words(["viết", normalize("NFD", "viết")])
    assert composed == decomposed == ["viết"]


def test_texts_without_words_have_none() -> None:
    assert IcuWords().words(["", " \n", "?! — …", "a"]) == [[], [], [], ["a"]]


@settings(deadline=None)
@given(st.lists(st.text(), max_size=4))
def test_words_are_never_empty_and_stand_in_the_text(texts: list[str]) -> None:
    found = IcuWords().words(texts)
    assert len(found) == len(texts)
    for text, words in zip(texts, found, strict=True):
        rest = normalize("NFC", text.casefold())
        for word in words:
            assert any(character.isalnum() for character in word)
            _, between, rest = rest.partition(word)
            assert between == word


def test_it_is_a_word_tokenizer() -> None:
    assert isinstance(IcuWords(), WordTokenizer)
