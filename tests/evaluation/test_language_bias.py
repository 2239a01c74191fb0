from __future__ import annotations

import numpy as np
import pytest

from clrelkt.corpora.model import Question
from clrelkt.evaluation.language_bias import NEAREST, measure_language_bias


def ask(language: str, number: int) -> Question:
    return Question(f"{language}{number}", language, "", "d", None, (), f"p{number}")


def unit(rows: np.ndarray) -> np.ndarray:
    found: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found.astype(np.float32)


QUESTIONS = [ask(language, number) for language in ("de", "th") for number in range(20)]


def test_languages_that_lie_apart() -> None:
    rng = np.random.default_rng(0)
    islands = np.where(np.arange(40) < 20, 1.0, -1.0)[:, None]
    vectors = unit(np.hstack([10 * islands, rng.normal(size=(40, 8))]))
    bias = measure_language_bias(QUESTIONS, vectors)
    for language in ("de", "th"):
        assert bias[language].share == 1
        # 19 of the 38 others, translations left out, are in the same language.
        assert bias[language].expected == pytest.approx(0.5)


def test_translations_with_the_same_vector_show_no_preference() -> None:
    rng = np.random.default_rng(0)
    asked = rng.normal(size=(20, 8))
    bias = measure_language_bias(QUESTIONS, unit(np.vstack([asked, asked])))
    assert bias["de"].share == pytest.approx(0.5)
    assert bias["th"].share == pytest.approx(0.5)


def test_a_small_case_by_hand() -> None:
    # On a half circle: de0 at 0, th1 at 10, de1 at 20, th0 at 30 degrees.
    questions = [ask("de", 0), ask("th", 1), ask("de", 1), ask("th", 0)]
    angles = np.radians([0, 10, 20, 30])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    bias = measure_language_bias(questions, vectors)
    # There are fewer than NEAREST others, so all count: one of the same language in two.
    assert NEAREST > 2
    assert bias["de"].share == bias["de"].expected == 0.5


def test_one_language_alone_has_none() -> None:
    assert measure_language_bias(QUESTIONS[:20], np.eye(20, dtype=np.float32)) == {}


def test_a_question_with_nothing_but_translations_is_left_out() -> None:
    questions = [ask("de", 0), ask("th", 0)]
    assert measure_language_bias(questions, np.eye(2, dtype=np.float32)) == {}
