"""Exact match and F1 against values worked out by hand from the published rules."""

from __future__ import annotations

import pytest

from clrelkt.errors import SettingsError
from clrelkt.reader.metrics import answer_words, exact_match, f1_score


def test_squad_drops_case_punctuation_and_english_articles() -> None:
    assert answer_words("The  U.S. Army's an apple!", "en", "squad") == ["us", "armys", "apple"]


def test_squad_keeps_punctuation_beyond_ascii() -> None:
    assert answer_words("«Roma»、X", "en", "squad") == ["«roma»、x"]


def test_f1_is_the_harmonic_mean_over_words() -> None:
    # Of three words two are right, of the gold's four two are found: 2 * 2/3 * 2/4 / (2/3 + 2/4).
    value = f1_score("in Rome today", ["yesterday in ancient Rome"], "en")
    assert value == pytest.approx(4 / 7)


def test_a_word_counts_as_often_as_both_have_it() -> None:
    # Common: "no" once. Precision 1/3, recall 1/1.
    assert f1_score("no no no", ["no"], "en") == pytest.approx(0.5)


def test_the_best_gold_counts() -> None:
    golds = ["quite another", "Rome"]
    assert exact_match("the Rome.", golds, "en") == 1
    assert f1_score("the Rome.", golds, "en") == 1


def test_nothing_in_common_is_zero() -> None:
    assert exact_match("Oslo", ["Rome"], "en") == 0
    assert f1_score("Oslo", ["Rome"], "en") == 0


def test_no_answer_is_worth_nothing() -> None:
    assert exact_match("", ["Rome"], "en") == 0
    assert f1_score("", ["Rome"], "en") == 0


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("en", "“The” Louvre—museum", ["louvremuseum"]),
        ("es", "¿Los gatos y la luna?", ["gatos", "y", "luna"]),
        ("de", "dem Haus des Mannes", ["haus", "mannes"]),
        ("vi", "những cái bàn", ["bàn"]),
        ("hi", "ताज महल।", ["ताज", "महल"]),
        ("ar", "في القاهرة", ["في", "قاهرة"]),
        ("zh", "約1980年,北京 City。", ["約", "1980", "年", "北", "京", "city"]),
        ("ru", "the Эрмитаж", ["the", "эрмитаж"]),
    ],
)
def test_mlqa_rules_depend_on_the_language(language: str, text: str, words: list[str]) -> None:
    assert answer_words(text, language, "mlqa") == words


def test_mlqa_counts_chinese_characters() -> None:
    # 北京 against 北京市: both characters right, two of three found.
    assert f1_score("北京", ["北京市"], "zh", "mlqa") == pytest.approx(0.8)
    assert f1_score("北京", ["北京市"], "zh", "squad") == 0


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(SettingsError, match="squad or mlqa"):
        exact_match("a", ["b"], "en", "trec")  # type: ignore[arg-type]


def test_no_gold_is_refused() -> None:
    with pytest.raises(SettingsError, match="there is none"):
        f1_score("a", [], "en")
