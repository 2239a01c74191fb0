from __future__ import annotations

from pathlib import Path

import pytest

from clrelkt.corpora import Corpus, load_corpus, take_split
from clrelkt.errors import DataError
from clrelkt.training.recipe import AnsweredQuestions, Contrastive, ParallelPairs
from clrelkt.training.supplies import load_supplies

GERMAN = {"the dog sleeps": "der Hund schläft", "the dog": "der Hund", "dog": "Hund"}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return take_split(load_corpus("bundled"), "train")


@pytest.fixture
def method(tmp_path: Path) -> Contrastive:
    pairs = tmp_path / "de" / "sentences.tsv"
    pairs.parent.mkdir()
    pairs.write_text("".join(f"{one}\t{other}\n" for one, other in GERMAN.items()), "utf-8")
    (tmp_path / "a.question").write_text("Which dog ?\nWho came ?\n", "utf-8")
    (tmp_path / "a.context").write_text("Rex .\nAnna .\n", "utf-8")
    wanted = ParallelPairs(("de",), 1.0, source=str(tmp_path), held_out=0)
    given = AnsweredQuestions(str(tmp_path), 1.0, switched=3, switched_words=1.0)
    return Contrastive(pairs=(wanted,), answered=(given,))


def test_questions_are_switched_into_the_languages_of_stage_and_pairs(
    corpus: Corpus, method: Contrastive
) -> None:
    (answered,) = load_supplies(method, corpus, ("en", "de", "ru")).answered
    assert answered.questions == ("Which dog?", "Who came?", "Which hund?")
    assert answered.passages == ("Rex.", "Anna.", "Rex.")


def test_a_stage_without_such_a_language_is_refused(corpus: Corpus, method: Contrastive) -> None:
    with pytest.raises(DataError, match="Set switched to 0"):
        load_supplies(method, corpus, ("en", "ru"))
