from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from clrelkt.cli.measure import measure
from clrelkt.encoders import load_encoder
from clrelkt.errors import DataError, UnknownNameError

CONTEXTS = {
    "en": ["Bees make honey. A queen lays the eggs.", "Iron is a metal. It rusts in the rain."],
    "de": ["Bienen machen Honig. Eine Königin legt Eier.", "Eisen ist ein Metall. Es rostet."],
    "ru": ["Пчёлы делают мёд. Матка откладывает яйца.", "Железо — металл. Оно ржавеет."],
}
QUESTIONS = {
    "en": ["Who makes honey?", "Who lays eggs?", "What is iron?"],
    "de": ["Wer macht Honig?", "Wer legt Eier?", "Was ist Eisen?"],
    "ru": ["Кто делает мёд?", "Кто откладывает яйца?", "Что такое железо?"],
}
ANSWERS = {
    "en": ["Bees", "queen", "metal"],
    "de": ["Bienen", "Königin", "Metall"],
    "ru": ["Пчёлы", "Матка", "металл"],
}
PASSAGE = [0, 0, 1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small parallel set whose passages are translated."""
    for code, contexts in CONTEXTS.items():
        paragraphs: list[dict[str, Any]] = [{"context": text, "qas": []} for text in contexts]
        for number, question in enumerate(QUESTIONS[code]):
            paragraph, answer = paragraphs[PASSAGE[number]], ANSWERS[code][number]
            start = paragraph["context"].index(answer)
            paragraph["qas"].append(
                {
                    "id": f"q{number}",
                    "question": question,
                    "answers": [{"text": answer, "answer_start": start}],
                }
            )
        data = [{"title": "Things", "paragraphs": paragraphs}]
        path = tmp_path / f"tiny.{code}.json"
        path.write_text(json.dumps({"data": data}), encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
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


def run(command: str, *arguments: str) -> str:
    result = CliRunner().invoke(measure, [command, "muse", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_mixed_pool_as_json(folder: Path) -> None:
    record = json.loads(run("mixed-pool", str(folder), "--split", "all", "--json"))
    assert (record["candidates"], record["pool_languages"]) == (6, ["en", "de", "ru"])
    assert {row["questions"] for row in record["languages"].values()} == {3}
    assert record["expected_own_language"] == pytest.approx(1 / 3)
    assert record["mean"]["x_to_x/map"] == 1
    assert "comparison" not in record


def test_some_languages_of_a_mixed_pool(folder: Path) -> None:
    arguments = [str(folder), "--split", "all", "--languages", "de", "en", "--json"]
    record = json.loads(run("mixed-pool", *arguments))
    assert (record["candidates"], list(record["languages"])) == (4, ["en", "de"])


def test_sentences_as_json(folder: Path) -> None:
    record = json.loads(run("sentences", str(folder), "--split", "all", "--json"))
    assert (record["breaks"], record["pool"]) == ("icu", "sentence")
    assert record["sentences"] == 2
    assert record["left_out"] == {"en": 0, "de": 0, "ru": 0}
    assert record["mean"]["hit_rate@5"] == 1


@pytest.mark.parametrize(
    ("command", "metric"), [("mixed-pool", "x_to_y/map"), ("sentences", "hit_rate@1")]
)
def test_another_encoder_stands_beside(
    folder: Path, shaken: Path, command: str, metric: str
) -> None:
    arguments = [str(folder), "--split", "all", "--against", str(shaken)]
    record = json.loads(run(command, *arguments, "--json"))
    comparison = record["comparison"]
    assert (comparison["metric"], comparison["first"]) == (metric, "muse")
    assert comparison["mean"]["first"] == pytest.approx(record["mean"][metric])
    assert comparison["mean"]["second"] == pytest.approx(record["against"]["mean"][metric])
    for code, row in comparison["languages"].items():
        assert row["first"] == pytest.approx(record["languages"][code][metric])
    text = run(command, *arguments)
    assert "95 % interval" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_corpus_in_one_language_has_no_mixed_pool(folder: Path) -> None:
    (folder / "tiny.de.json").unlink()
    (folder / "tiny.ru.json").unlink()
    with pytest.raises(DataError, match="'en' alone"):
        run("mixed-pool", str(folder), "--split", "all")


@pytest.mark.parametrize("command", ["mixed-pool", "sentences"])
def test_unknown_names_are_errors(folder: Path, command: str) -> None:
    with pytest.raises(UnknownNameError, match="'el'"):
        run(command, str(folder), "--split", "all", "--languages", "el,en")
    with pytest.raises(UnknownNameError, match="no-such-encoder"):
        run(command, str(folder), "--split", "all", "--against", "no-such-encoder")


def test_the_group_lists_them() -> None:
    text = CliRunner().invoke(measure, ["--help"]).output
    assert "mixed-pool" in text
    assert "sentences" in text
