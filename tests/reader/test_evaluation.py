"""Scores by language; gold and retrieved passages; the commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from clrelkt.cli.main import cli
from clrelkt.corpora import load_corpus
from clrelkt.corpora.model import Answer, Corpus
from clrelkt.errors import DataError, SettingsError
from clrelkt.reader import Reader, evaluate_reader, gold_tasks, retrieved_tasks, training_pairs


def by_shared_words(texts: Sequence[str], kind: str) -> np.ndarray:
    """One place a word: the more words two texts share, the nearer they are."""
    table = np.zeros((len(texts), 4096), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            table[row, sum(ord(c) * 31**i for i, c in enumerate(word)) % 4096] = 1
    return table


@pytest.fixture
def small(toy_corpus: Corpus) -> Corpus:
    """Four questions, the last two said to be German."""
    first = toy_corpus.questions[:4]
    told = (*first[:2], *(replace(question, language="de") for question in first[2:]))
    return toy_corpus.with_questions(told)


def test_languages_are_scored_apart(trained: Reader, small: Corpus) -> None:
    questions = list(small.questions)
    # A gold that the reader's "Oslo" shares one of two words with: EM 0, F1 2/3.
    assert questions[2].answers[0].text == "Oslo"
    questions[2] = replace(questions[2], answers=(Answer("Oslo town", None),))
    results = evaluate_reader(
        trained,
        gold_tasks(small.with_questions(questions)),
        answer_language="en",
        context="gold",
    )
    english, german = results.languages["en"], results.languages["de"]
    assert (english.questions, english.exact_match, english.f1) == (2, 1.0, 1.0)
    assert german.exact_match == 0.5
    assert german.f1 == pytest.approx((2 / 3 + 1) / 2)
    assert results.mean.exact_match == 0.75
    assert results.mean.questions == 4
    assert [p.answer for p in results.predictions] == ["Rome", "bread", "Oslo", "bread"]


def test_retrieved_passages_come_nearest_first(small: Corpus) -> None:
    tasks = retrieved_tasks(small, by_shared_words, passages=3)
    assert [task.question.id for task in tasks] == [q.id for q in small.questions]
    for task in tasks:
        person = task.question.text.split()[2]
        assert all(person in passage.text for passage in task.passages)
        assert len(task.passages) == 3


def test_the_surest_of_several_passages_answers(trained: Reader, small: Corpus) -> None:
    by_id = {passage.id: passage for d in small.documents for passage in d.passages}
    empty = replace(by_id[small.questions[0].passage_id or ""], text="day by day .", id="none")
    tasks = [replace(t, passages=(empty, *t.passages)) for t in gold_tasks(small)]
    results = evaluate_reader(trained, tasks, answer_language="en", context="retrieved")
    assert results.mean.exact_match == 1.0
    assert all(p.passage_id != "none" for p in results.predictions)


def test_retrieved_passages_without_the_answer_teach_that_there_is_none(small: Corpus) -> None:
    retrieved = retrieved_tasks(small, by_shared_words, passages=4)
    pairs = training_pairs(small, retrieved)
    assert len(pairs) > len(small.questions)
    golds = {q.text: [a.text for a in q.answers] for q in small.questions}
    for question, context, answer in pairs[len(small.questions) :]:
        assert answer is None
        assert not any(gold in context for gold in golds[question])


def test_a_question_without_a_gold_passage_is_told(small: Corpus) -> None:
    lost = small.with_questions([replace(small.questions[0], passage_id="gone")])
    with pytest.raises(DataError, match=r"'gone' is not in the corpus"):
        gold_tasks(lost)


def test_a_question_without_an_answer_is_told(small: Corpus) -> None:
    unanswered = small.with_questions([replace(small.questions[0], answers=())])
    with pytest.raises(DataError, match="has no answer"):
        gold_tasks(unanswered)


def test_no_passage_is_refused(small: Corpus) -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        retrieved_tasks(small, by_shared_words, passages=0)


def test_the_commands_train_and_evaluate(base_model: Path, toy_file: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    output, answers = tmp_path / "reader", tmp_path / "answers.jsonl"
    sizes = ["--max-length", "60", "--stride", "8", "--batch", "8", "--device", "cpu"]
    how = ["--epochs", "40", "--learning-rate", "0.003", "--json"]
    done = runner.invoke(
        cli,
        ["reader", "train", str(base_model), str(toy_file), "-o", str(output), *sizes, *how],
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["dev"]["languages"]["en"]["questions"] == 10
    evaluate = ["reader", "evaluate", str(output), str(toy_file), *sizes]
    done = runner.invoke(cli, [*evaluate, "--json", "--predictions", str(answers)])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    rows = [json.loads(line) for line in answers.read_text("utf-8").splitlines()]
    assert len(rows) == record["languages"]["en"]["questions"] == 10
    assert record["mean"]["exact_match"] == pytest.approx(
        sum(row["answer"] == row["golds"][0] for row in rows) / 10
    )
    done = runner.invoke(cli, [*evaluate, "--split", "all", "--languages", "en"])
    assert "exact match" in done.output
    assert "en" in done.output


def test_the_bundled_corpus_has_what_a_reader_needs() -> None:
    corpus = load_corpus("bundled")
    assert len(training_pairs(corpus)) == len(corpus.questions)
