"""The command line as a user meets it: real processes, their exit status and their output."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clrelkt.cli.main import main


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clrelkt", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80"},
    )


Fails = Callable[..., str]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Return a function that runs a command in this process and returns its message.

    The command must end with exit status 1 and one line on standard error.
    """

    def run_and_fail(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        message = capsys.readouterr().err
        assert ended.value.code == 1, message
        assert "Traceback" not in message
        assert message.startswith("error: ")
        assert len(message.strip().splitlines()) == 1
        return message

    return run_and_fail


def test_a_fault_ends_a_real_process_in_one_line_and_status_1() -> None:
    done = run("evaluate", "muse", "nosuch")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """A small corpus in SQuAD form, in English and German."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    texts = {"en": "Who wrote about {}?", "de": "Wer schrieb über {}?"}
    for code, text in texts.items():
        articles = [
            {
                "title": subject,
                "paragraphs": [
                    {
                        "context": f"{subject} was described by Ada{number}.",
                        "qas": [
                            {
                                "id": f"q{number}",
                                "question": text.format(subject),
                                "answers": [
                                    {
                                        "text": f"Ada{number}",
                                        "answer_start": len(f"{subject} was described by "),
                                    }
                                ],
                            }
                        ],
                    }
                ],
            }
            for number, subject in enumerate(["Tea", "Rain", "Iron", "Wool", "Salt", "Glass"])
        ]
        (folder / f"small.{code}.json").write_text(json.dumps({"data": articles}), "utf-8")
    return folder


def change(folder: Path, code: str, old: str, new: str) -> None:
    path = folder / f"small.{code}.json"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def test_help_lists_every_command_without_importing_torch() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in ("demo", "reproduce", "train", "evaluate", "data", "completion"):
        assert command in done.stdout
    code = (
        "import sys, clrelkt.cli.main; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", ["demo", "reproduce", "train", "evaluate", "data"])
def test_help_of_a_command(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert "Usage: clrelkt" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_program(shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0
    assert "_CLRELKT_COMPLETE" in done.stdout


def test_completion_offers_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from clrelkt.cli.main import main; main()"],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "_CLRELKT_COMPLETE": "bash_complete",
            "COMP_WORDS": "clrelkt ev",
            "COMP_CWORD": "1",
        },
    )
    assert "evaluate" in done.stdout


def test_evaluate_prints_one_json_object(questions: Path) -> None:
    done = run("evaluate", "muse", str(questions), "--split", "all", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["encoder"] == "muse"
    assert record["pool"] == "document"
    assert record["document_score"] == "whole"
    assert record["split"] == "all"
    assert set(record["languages"]) == {"en", "de"}
    german = record["languages"]["de"]
    assert german["questions"] == 6
    assert set(german) == {"questions", "hit_rate@1", "hit_rate@5", "hit_rate@10", "mrr@10"}
    assert set(record["mean"]) == set(german) - {"questions"}
    assert german["hit_rate@10"] == 1.0


def test_truncated_json(questions: Path, fails: Fails) -> None:
    path = questions / "small.de.json"
    path.write_text(path.read_text("utf-8")[:200], "utf-8")
    message = fails("evaluate", "muse", str(questions))
    assert "small.de.json" in message


def test_duplicate_ids(questions: Path, fails: Fails) -> None:
    change(questions, "de", '"id": "q1"', '"id": "q0"')
    message = fails("evaluate", "muse", str(questions))
    assert "small.de.json" in message
    assert "q0" in message


def test_an_answer_that_is_not_in_its_passage(questions: Path, fails: Fails) -> None:
    change(questions, "en", '"text": "Ada2"', '"text": "Bob"')
    message = fails("evaluate", "muse", str(questions))
    assert "small.en.json" in message
    assert "Bob" in message


def test_a_question_whose_gold_passage_is_missing(questions: Path, fails: Fails) -> None:
    path = questions / "small.en.json"
    record = json.loads(path.read_text("utf-8"))
    del record["data"][3]
    path.write_text(json.dumps(record), "utf-8")
    message = fails("evaluate", "muse", str(questions))
    assert "q3" in message


def test_an_empty_question(questions: Path, fails: Fails) -> None:
    change(questions, "de", "Wer schrieb \\u00fcber Rain?", "  ")
    message = fails("evaluate", "muse", str(questions))
    assert "small.de.json" in message
    assert "q1" in message


def test_an_unknown_language_code(questions: Path, fails: Fails) -> None:
    shutil.copy(questions / "small.de.json", questions / "small.qx.json")
    assert "qx" in fails("evaluate", "muse", str(questions))
    (questions / "small.qx.json").unlink()
    assert "'xx'" in fails("evaluate", "muse", str(questions), "--languages", "xx")


def test_check_prints_every_fault_and_fails(questions: Path, fails: Fails) -> None:
    change(questions, "de", '"id": "q1"', '"id": "q0"')
    change(questions, "en", '"text": "Ada2"', '"text": "Bob"')
    done = run("data", "check", str(questions))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    printed = done.stdout + done.stderr
    assert "small.de.json" in printed
    assert "small.en.json" in printed


def test_unknown_names(fails: Fails) -> None:
    assert "'nosuch'" in fails("evaluate", "nosuch", "bundled")
    assert "nosuch" in fails("evaluate", "muse", "nosuch")
    assert "nosuch" in fails("train", "nosuch")
    assert "nosuch" in fails("data", "get", "nosuch")


def test_a_folder_that_is_no_encoder(tmp_path: Path, fails: Fails) -> None:
    assert str(tmp_path) in fails("evaluate", str(tmp_path), "bundled")


def test_an_unwritable_output_folder(tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    message = fails("train", "demo", "-o", str(tmp_path / "file" / "run"))
    assert "file" in message


def test_a_gpu_that_is_not_there(tmp_path: Path, fails: Fails) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    message = fails("train", "demo", "--device", "cuda", "-o", str(tmp_path / "run"))
    assert "cuda" in message


def test_a_recipe_with_a_wrong_value(tmp_path: Path, fails: Fails) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\ncorpus = "bundled"\nstages = 3\n', "utf-8")
    message = fails("train", str(path))
    assert "mine.toml" in message
    assert "stages" in message
