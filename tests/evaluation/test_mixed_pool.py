from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

import clrelkt.evaluation.mixed_pool as module
from clrelkt.corpora import Corpus, Document, Passage, Question, load_corpus, take_split
from clrelkt.encoders import MuseEncoder
from clrelkt.errors import DataError, UnknownNameError
from clrelkt.evaluation.mixed_pool import MixedPoolEvaluator

LANGUAGES = ("en", "de", "fi")
PASSAGES = 5


def toy(questions: int = 8, languages: Sequence[str] = LANGUAGES) -> Corpus:
    """Question i of each language is answered by passage i mod 5; each text is a name."""
    passages = tuple(Passage(f"d#{n}", "d", f"en passage {n}") for n in range(PASSAGES))
    return Corpus(
        "toy",
        tuple(
            Question(f"{code}:{n}", code, f"{code} {n}", "d", f"d#{n % PASSAGES}", (), f"q{n}")
            for code in languages
            for n in range(questions)
        ),
        (Document("d", "d", passages),),
        passage_translations={
            code: {f"d#{n}": f"{code} passage {n}" for n in range(PASSAGES)}
            for code in languages[1:]
        },
    )


class Fixed:
    """Every text has the vector that it is given; the others are random."""

    name, weights, dimension = "fixed", "", 16
    languages = frozenset({"en", "de"})

    def __init__(self, given: dict[str, np.ndarray] | None = None, seed: int = 0) -> None:
        self.given = given or {}
        self.rng = np.random.default_rng(seed)
        self.texts: list[str] = []

    def vector(self, text: str) -> np.ndarray:
        if text not in self.given:
            drawn = self.rng.standard_normal(self.dimension).astype(np.float32)
            self.given[text] = drawn / np.linalg.norm(drawn)
        return self.given[text]

    def encode(self, texts: Sequence[str], kind: Any = "passage", *, progress: bool = False) -> Any:
        self.texts += texts
        return np.stack([self.vector(text) for text in texts]).astype(np.float32)


def score_table(encoder: Fixed, corpus: Corpus, code: str) -> dict[str, dict[str, float]]:
    return {
        question.parallel_id: {
            f"{language}|{n}": float(
                encoder.vector(question.text).astype(np.float64)
                @ encoder.vector(f"{language} passage {n}").astype(np.float64)
            )
            for language in corpus.languages
            for n in range(PASSAGES)
        }
        for question in corpus.questions_in(code)
    }


@pytest.mark.parametrize("budget", [1, 2**21])
def test_average_precision_is_that_of_trec_eval(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BUDGET", budget)
    corpus, encoder = toy(), Fixed()
    result = MixedPoolEvaluator(corpus)(encoder)
    assert list(result.languages) == ["en", "de", "fi"]
    assert result.candidates == 15
    for code, row in result.languages.items():
        table = score_table(encoder, corpus, code)
        right = {
            f"q{n}": {f"{language}|{n % PASSAGES}": 1 for language in LANGUAGES} for n in range(8)
        }
        judged = pytrec_eval.RelevanceEvaluator(right, {"map"}).evaluate(table)
        every = [judged[parallel_id]["map"] for parallel_id in row.parallel_ids]
        assert row.average_precision == pytest.approx(every, abs=1e-6)
        assert row.x_to_y == pytest.approx(np.mean(every), abs=1e-6)
        own = {
            id_: {name: score for name, score in scores.items() if name.startswith(code)}
            for id_, scores in table.items()
        }
        judged = pytrec_eval.RelevanceEvaluator(right, {"recip_rank"}).evaluate(own)
        # trec_eval counts versions outside the pool as not found, hence not its map here.
        every = [judged[parallel_id]["recip_rank"] for parallel_id in row.parallel_ids]
        assert row.x_to_x == pytest.approx(np.mean(every), abs=1e-6)


def test_shares_and_distances_are_those_of_plain_sorting() -> None:
    corpus, encoder = toy(), Fixed(seed=3)
    result = MixedPoolEvaluator(corpus)(encoder)
    for code, row in result.languages.items():
        own_1, own_10, distances = [], [], []
        for number, scores in enumerate(score_table(encoder, corpus, code).values()):
            ordered = sorted(scores, key=lambda name: -scores[name])
            own_1.append(ordered[0].startswith(code))
            own_10.append(np.mean([name.startswith(code) for name in ordered[:10]]))
            ranks = [ordered.index(f"{other}|{number % PASSAGES}") for other in LANGUAGES]
            distances.append(np.mean([abs(a - b) for a, b in combinations(ranks, 2)]))
        assert row.own_language_at_1 == pytest.approx(np.mean(own_1))
        assert row.own_language_at_10 == pytest.approx(np.mean(own_10))
        assert row.rank_distance == pytest.approx(np.mean(distances))


def unit(place: int) -> np.ndarray:
    row: np.ndarray = np.eye(16, dtype=np.float32)[place]
    return row


def test_versions_with_one_meaning_are_all_found_and_stand_side_by_side() -> None:
    corpus = toy(PASSAGES)
    given = {f"{c} passage {n}": unit(n) for c in LANGUAGES for n in range(PASSAGES)}
    given |= {f"{c} {n}": unit(n) for c in LANGUAGES for n in range(PASSAGES)}
    result = MixedPoolEvaluator(corpus)(Fixed(given))
    assert result.values["x_to_y/map"] == result.values["x_to_x/map"] == 1
    assert result.mean["rank_distance"] == pytest.approx((3 + 1) / 3)
    # All three versions tie for the first place, and a tie is held against the encoder.
    assert result.mean["own_language@1"] == 1
    assert result.expected_own_language == pytest.approx(1 / 3)


def test_a_pool_sorted_by_language_finds_few_versions() -> None:
    corpus = toy(PASSAGES)
    given = {
        f"{c} passage {n}": np.sqrt(0.5) * (unit(n) + unit(5 + place))
        for place, c in enumerate(LANGUAGES)
        for n in range(PASSAGES)
    }
    given |= {
        f"{c} {n}": np.sqrt(0.1) * unit(n) + np.sqrt(0.9) * unit(5 + place)
        for place, c in enumerate(LANGUAGES)
        for n in range(PASSAGES)
    }
    result = MixedPoolEvaluator(corpus)(Fixed(given))
    # The own version first, the four other own passages, then the two other versions tied.
    assert result.values["x_to_x/map"] == 1
    assert result.values["x_to_y/map"] == pytest.approx((1 + 2 / 6 + 3 / 7) / 3)
    assert result.mean["own_language@1"] == 1
    assert result.mean["own_language@10"] == 0.5
    assert result.mean["rank_distance"] == pytest.approx((5 + 6 + 1) / 3)
    assert result.values["neg_rank_distance"] == pytest.approx(-4)
    assert result.values["other_language@10"] == 0.5


def test_among_equal_scores_the_right_ones_come_last() -> None:
    same = {f"{c} passage {n}": unit(0) for c in LANGUAGES for n in range(PASSAGES)}
    result = MixedPoolEvaluator(toy())(Fixed(same))
    assert result.mean["x_to_x/map"] == pytest.approx(1 / PASSAGES)
    assert result.mean["x_to_y/map"] == pytest.approx((1 / 13 + 2 / 14 + 3 / 15) / 3)


@given(st.integers(0, 10_000), st.integers(2, 4))
def test_measures_lie_within_their_limits(seed: int, languages: int) -> None:
    codes = ("en", "de", "fi", "ru")[:languages]
    result = MixedPoolEvaluator(toy(3, codes))(Fixed(seed=seed))
    for row in result.languages.values():
        assert 0 < row.x_to_y <= 1
        assert 0 < row.x_to_x <= 1
        assert row.rank_distance >= (languages + 1) / 3 - 1e-9
        assert 0 <= row.own_language_at_10 <= 1


def test_a_passage_without_a_version_counts_only_where_it_is() -> None:
    corpus = toy()
    german = {id_: text for id_, text in corpus.passage_translations["de"].items() if id_ != "d#0"}
    poorer = replace(
        corpus, passage_translations={"de": german, "fi": corpus.passage_translations["fi"]}
    )
    given = {f"{c} passage {n}": unit(n) for c in LANGUAGES for n in range(PASSAGES)}
    given |= {f"{c} {n}": unit(n % PASSAGES) for c in LANGUAGES for n in range(8)}
    result = MixedPoolEvaluator(poorer)(Fixed(given))
    assert result.candidates == 14
    assert (result.languages["de"].questions, result.languages["de"].left_out) == (6, 2)
    assert (result.languages["en"].questions, result.languages["en"].left_out) == (8, 0)
    assert result.values["x_to_y/map"] == 1


def test_each_distinct_text_is_encoded_once() -> None:
    encoder = Fixed()
    evaluator = MixedPoolEvaluator(toy())
    evaluator(encoder)
    assert len(encoder.texts) == len(set(encoder.texts)) == 3 * 8 + 15
    assert set(encoder.texts) == {*evaluator.question_texts, *evaluator.candidate_texts}


def test_languages_choose_questions_and_pool() -> None:
    result = MixedPoolEvaluator(toy(), languages=["fi", "en"], split="test")(Fixed())
    assert (result.pool_languages, result.candidates, result.split) == (("en", "fi"), 10, "test")


def test_json_and_values_say_the_same() -> None:
    result = MixedPoolEvaluator(toy())(Fixed())
    record = result.to_json()
    assert record["languages"]["de"]["x_to_y/map"] == result.values["x_to_y/map/de"]
    assert record["mean"]["x_to_x/map"] == result.values["x_to_x/map"]
    assert result.groups == {"supported": ("de",), "unsupported": ("fi",)}
    assert result.values["x_to_y/map/supported"] == result.languages["de"].x_to_y
    for measure in ("x_to_y", "x_to_x"):
        every = [np.mean(list(row.values())) for row in result.question_values(measure).values()]
        assert np.mean(every) == pytest.approx(result.values[f"{measure}/map"])
    with pytest.raises(UnknownNameError, match="x_to_z"):
        result.question_values("x_to_z")


def test_what_cannot_be_measured_is_refused() -> None:
    corpus = toy()
    with pytest.raises(DataError, match="'en' alone"):
        MixedPoolEvaluator(replace(corpus, passage_translations={}))
    with pytest.raises(DataError, match="no questions"):
        MixedPoolEvaluator(corpus.with_questions([]))
    with pytest.raises(DataError, match="at least two languages"):
        MixedPoolEvaluator(corpus, languages=["de"])
    with pytest.raises(UnknownNameError, match="'el'"):
        MixedPoolEvaluator(corpus, languages=["en", "el"])
    only_german = replace(corpus, passage_translations={"de": corpus.passage_translations["de"]})
    with pytest.raises(DataError, match="no passages in 'fi'"):
        MixedPoolEvaluator(only_german, languages=["en", "fi"])
    lost = replace(corpus.questions[0], passage_id="d#9")
    with pytest.raises(DataError, match="'d#9' is not in the corpus"):
        MixedPoolEvaluator(corpus.with_questions([lost, *corpus.questions[1:]]))
    foreign = replace(corpus, passage_translations={"de": {"d#0": "x"}, "fi": {"d#9": "y"}})
    with pytest.raises(DataError, match="no question in 'fi' has its gold passage"):
        MixedPoolEvaluator(foreign)


def test_the_pool_of_xquad(data_folder: Path) -> None:
    evaluator = MixedPoolEvaluator(load_corpus(data_folder / "xquad"))
    result = evaluator(Fixed())
    assert result.candidates == 2880
    assert {row.questions for row in result.languages.values()} == {1190}
    assert {row.left_out for row in result.languages.values()} == {0}
    assert result.expected_own_language == 1 / 12


def test_muse_prefers_its_own_language(data_folder: Path, muse: MuseEncoder) -> None:
    corpus = take_split(load_corpus(data_folder / "xquad"), "test")
    result = MixedPoolEvaluator(corpus, languages=["en", "de"])(muse)
    assert result.values["x_to_x/map/en"] == pytest.approx(0.896, abs=0.006)
    assert result.values["x_to_x/map/de"] == pytest.approx(0.880, abs=0.006)
    # Were it free of the preference, finding both versions would be as easy as finding one.
    assert result.values["x_to_y/map"] < result.values["x_to_x/map"]
    assert result.mean["own_language@1"] > 0.7 > result.expected_own_language
