from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from clrelkt.cli.evaluate import evaluate
from clrelkt.encoders import load_encoder
from clrelkt.errors import SettingsError, UnknownNameError

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


@pytest.fixture(scope="session")
def shaken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an encoder that is mUSE with some noise."""
    folder = tmp_path_factory.mktemp("encoders") / "shaken"
    encoder = load_encoder("muse")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        parameter = dict(encoder.named_parameters())["network.projection"]
        parameter.add_(torch.randn(parameter.shape, generator=generator) * parameter.std())
    encoder.save(folder, form="delta")
    return folder


def test_another_encoder_stands_beside(folder: Path, shaken: Path) -> None:
    arguments = [str(folder), "--split", "all", "--against", str(shaken)]
    record = json.loads(run(*arguments, "--metric", "mrr@10", "--json"))
    comparison = record["comparison"]
    assert (comparison["metric"], comparison["first"]) == ("mrr@10", "muse")
    assert comparison["second"] == record["against"]["encoder"]
    for code, row in comparison["languages"].items():
        assert row["first"] == pytest.approx(record["languages"][code]["mrr@10"])
        assert row["second"] == pytest.approx(record["against"]["languages"][code]["mrr@10"])
        assert row["difference"] == pytest.approx(row["first"] - row["second"])
        assert row["low"] <= row["difference"] <= row["high"]
        assert 0 < row["p"] <= row["adjusted_p"] <= 1
    text = run(*arguments)
    assert "95 % interval" in text
    assert max(map(len, text.splitlines())) <= 80


def test_every_language_has_its_interval(folder: Path) -> None:
    record = json.loads(run(str(folder), "--split", "all", "--json"))
    assert set(record["intervals"]) == {"languages", "mean", "means"}
    for code, row in record["languages"].items():
        estimate = record["intervals"]["languages"][code]["hit_rate@1"]
        assert estimate["mean"] == row["hit_rate@1"]
        assert estimate["low"] <= estimate["mean"] <= estimate["high"]
    assert "against" not in record


def test_wrong_answers_are_written(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "errors.jsonl"
    arguments = [str(folder), "--split", "all", "--pool", "passage", "--json"]
    result = CliRunner().invoke(evaluate, ["muse", *arguments, "--errors", str(path)])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    wrong = sum(4 * (1 - row["hit_rate@1"]) for row in record["languages"].values())
    assert len(rows) == round(wrong)
    assert {row["language"] for row in rows} <= {"en", "de", "ru"}
    assert f"{len(rows)} wrong answers" in result.stderr
    plain = json.loads(run(*arguments))
    assert plain == record


def test_at_most_so_many_wrong_answers(folder: Path, shaken: Path, tmp_path: Path) -> None:
    path = tmp_path / "errors.jsonl"
    arguments = [str(folder), "--split", "all", "--pool", "passage", "--errors", str(path)]
    result = CliRunner().invoke(evaluate, [str(shaken), *arguments, "--errors-limit", "1"])
    assert result.exit_code == 0, result.output
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 1


def test_a_wrong_second_encoder_is_an_error(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="no-such-encoder"):
        run(str(folder), "--split", "all", "--against", "no-such-encoder")


def test_two_devices_find_the_same(folder: Path) -> None:
    options = (str(folder), "--split", "all", "--pool", "passage", "--json", "--device", "cpu")
    alone, two = (json.loads(run(*options, "--gpus", gpus)) for gpus in ("1", "2"))
    assert two["languages"] == alone["languages"]
    with pytest.raises(SettingsError, match="--batch-tokens goes with one device"):
        run(*options, "--gpus", "2", "--batch-tokens", "100")
