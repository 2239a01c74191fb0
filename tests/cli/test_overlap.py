from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from clrelkt.cli.data import data
from clrelkt.cli.evaluate import evaluate
from clrelkt.errors import DataError

TEXT = "The bridge over the river was opened by the queen in spring."


def write(path: Path, articles: dict[str, str]) -> Path:
    path.write_text(
        json.dumps(
            {
                "data": [
                    {
                        "title": title,
                        "paragraphs": [
                            {
                                "context": context,
                                "qas": [
                                    {
                                        "id": f"{title}-q",
                                        "question": f"What of {title}?",
                                        "answers": [
                                            {"text": context.split()[0], "answer_start": 0}
                                        ],
                                    }
                                ],
                            }
                        ],
                    }
                    for title, context in articles.items()
                ]
            }
        ),
        encoding="utf-8",
    )
    return path


@pytest.fixture
def tested(tmp_path: Path) -> Path:
    articles = {"Bridges": TEXT, "Bees": "Bees make honey.", "Iron_ore": "Iron is a metal."}
    return write(tmp_path / "tested.en.json", articles)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    articles = {"Queens": f"It is said: {TEXT}", "Iron ore": "Ores are dug."}
    return write(tmp_path / "trained.en.json", articles)


def run_overlap(*arguments: object) -> Result:
    return CliRunner().invoke(data, ["overlap", *map(str, arguments)], catch_exceptions=False)


def run_evaluate(*arguments: object) -> Result:
    everything = ["muse", *map(str, arguments), "--split", "all", "--json"]
    return CliRunner().invoke(evaluate, everything, catch_exceptions=False)


def test_overlap_says_what_is_shared(tested: Path, trained: Path) -> None:
    shown = run_overlap(tested, trained)
    assert shown.exit_code == 0
    assert "Bridges | Queens" in shown.stdout
    assert "12 words in a row: the bridge over" in shown.stdout
    assert "shared: the title" in shown.stdout
    assert shown.stdout.endswith("2 documents with 2 titles share something\n")
    rows = json.loads(run_overlap(tested, trained, "--json").stdout)
    assert [(row["document_id"], row["words"], row["same_title"]) for row in rows] == [
        ("Bridges", 12, False),
        ("Iron_ore", 0, True),
    ]
    assert not json.loads(run_overlap(tested, trained, "--json", "--words", "13").stdout)[1:]


def test_evaluate_leaves_them_out(tested: Path, trained: Path) -> None:
    done = run_evaluate(tested, "--leave-out-shared-with", trained)
    assert json.loads(done.stdout)["languages"]["en"]["questions"] == 1
    assert done.stderr == "left out: 2 documents, 2 questions: Bridges, Iron_ore\n"
    assert json.loads(done.stdout)["corpus"] == "tested.en without 2 documents"
    named = run_evaluate(tested, "--leave-out", "Bees")
    assert json.loads(named.stdout)["languages"]["en"]["questions"] == 2


def test_nothing_is_left(tested: Path) -> None:
    with pytest.raises(DataError, match=r"no question is left when 3 documents go"):
        run_evaluate(tested, "--leave-out-shared-with", tested)
    with pytest.raises(DataError, match="'Wool'"):
        run_evaluate(tested, "--leave-out", "Wool")
