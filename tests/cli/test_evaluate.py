from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from clrelkt.cli.evaluate import evaluate
from clrelkt.errors import UnknownNameError

CONTEXTS = {
    "Bees": ["Bees make honey from nectar.", "A queen lays the eggs of the hive."],
    "Iron": ["Iron is a metal that rusts.", "Steel is made of iron and carbon."],
}
QUESTIONS = {
    "en": ["Who makes honey?", "Who lays eggs?", "Which metal rusts?", "What is steel made of?"],
    "de": ["Wer macht Honig?", "Wer legt Eier?", "Welches Metall rostet?", "Woraus ist Stahl?"],
    "ru": ["Кто делает мёд?", "Кто откладывает яйца?", "Что ржавеет?", "Из чего сталь?"],
}
ANSWERS = ["Bees", "queen", "Iron", "iron and carbon"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small corpus in SQuAD form, one file a language."""
    for language, questions in QUESTIONS.items():
        paragraphs = [
            {
                "context": context,
                "qas": [
                    {
                        "id": f"q{2 * article + place}",
                        "question": questions[2 * article + place],
                        "answers": [
                            {
                                "text": ANSWERS[2 * article + place],
                                "answer_start": context.index(ANSWERS[2 * article + place]),
                            }
                        ],
                    }
                ],
            }
            for article, contexts in enumerate(CONTEXTS.values())
            for place, context in enumerate(contexts)
        ]
        data = [
            {"title": title, "paragraphs": paragraphs[2 * article : 2 * article + 2]}
            for article, title in enumerate(CONTEXTS)
        ]
        path = tmp_path / f"tiny.{language}.json"
        path.write_text(json.dumps({"version": "1", "data": data}), encoding="utf-8")
    return tmp_path


def run(*args: str) -> str:
    result = CliRunner().invoke(evaluate, ["muse", *args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_is_one_object_and_nothing_else(folder: Path) -> None:
    record = json.loads(run(str(folder), "--split", "all", "--pool", "passage", "--json"))
    assert list(record["languages"]) == ["en", "de", "ru"]
    assert record["languages"]["en"]["questions"] == 4
    assert (record["encoder"], record["pool"], record["split"]) == ("muse", "passage", "all")
    assert "bm25" not in record


@pytest.mark.parametrize(
    "languages",
    [
        ["--languages", "de,ru"],
        ["--languages", "de", "ru"],
        ["--languages", "de ru"],
        ["--languages", "de", "--languages", "ru"],
        ["--languages=de,ru"],
    ],
)
def test_languages_can_be_given_in_several_ways(folder: Path, languages: list[str]) -> None:
    record = json.loads(run(str(folder), "--split", "all", "--json", *languages))
    assert list(record["languages"]) == ["de", "ru"]


def test_the_baseline_asks_in_english_even_where_english_is_not_shown(folder: Path) -> None:
    record = json.loads(run(str(folder), "--split", "all", "--bm25", "--languages", "de", "--json"))
    assert record["bm25"]["encoder"] == "bm25 (English question)"
    assert record["bm25"]["languages"]["de"]["hit_rate@1"] == 1.0


def test_the_budget_of_tokens_changes_nothing(folder: Path) -> None:
    plain, cut = (
        json.loads(run(str(folder), "--split", "all", "--json", *more))
        for more in ([], ["--batch-tokens", "5"])
    )
    assert plain == cut


def test_the_table_names_encoder_and_corpus(folder: Path) -> None:
    text = run(str(folder), "--split", "all", "--bm25", "--document-score", "best-passage")
    assert "best-passage" in text
    assert "bm25 (English question)" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_an_unknown_language_or_encoder_is_an_error(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="'el'"):
        run(str(folder), "--split", "all", "--languages", "el")
    with pytest.raises(UnknownNameError, match="no-such-encoder"):
        CliRunner().invoke(
            evaluate,
            ["no-such-encoder", str(folder), "--split", "all"],
            catch_exceptions=False,
        )
