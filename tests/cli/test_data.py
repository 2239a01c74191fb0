from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from clrelkt.cli.data import data
from clrelkt.errors import DataError, DownloadError, UnknownNameError


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CLRELKT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "data"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(data, [str(argument) for argument in arguments])


def test_list_names_everything() -> None:
    listed = json.loads(run("list", "--json").stdout)
    assert [row["name"] for row in listed] == [
        "bundled",
        "xquad",
        "mlqa",
        "xorqa",
        "xquad-r",
        "muse-8bit",
    ]
    assert [row["name"] for row in listed if row["here"]] == ["bundled"]
    printed = run("list").stdout
    assert all(row["licence"] in printed and row["name"] in printed for row in listed)
    assert "clrelkt data get mlqa" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_get_from_a_folder(data_folder: Path, root: Path) -> None:
    result = run("get", "xquad", "--from", data_folder / "xquad")
    assert result.exit_code == 0
    assert result.stdout == f"xquad: {root / 'xquad'}\n"
    assert len(list((root / "xquad").iterdir())) == 12
    partly = run("get", "mlqa", "--from", data_folder / "mlqa")
    assert "test/*.json" in partly.stderr
    assert [row["name"] for row in json.loads(run("list", "--json").stdout) if row["here"]] == [
        "bundled",
        "xquad",
        "mlqa",
    ]


def test_get_refuses_a_changed_file(data_folder: Path, root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_folder / "xquad", tmp_path / "mine", copy_function=shutil.copyfile)
    changed = tmp_path / "mine/xquad.th.json"
    content = bytearray(changed.read_bytes())
    content[1000] ^= 1
    changed.write_bytes(content)
    result = run("get", "xquad", "--from", tmp_path / "mine")
    assert isinstance(result.exception, DownloadError)
    assert "xquad.th.json has SHA-256" in str(result.exception)
    assert not root.exists()


def test_get_what_is_not_known_or_comes_along(tmp_path: Path) -> None:
    assert isinstance(run("get", "nothing").exception, UnknownNameError)
    assert isinstance(run("get", "xquad", "--from", tmp_path).exception, DataError)
    assert "comes with clrelkt" in run("get", "bundled").stdout


def test_check_of_sound_files(data_folder: Path) -> None:
    result = run("check", data_folder / "xquad")
    assert result.exit_code == 0
    assert result.stdout.startswith("no faults; 14280 questions")
    assert "th 1190" in result.stdout
    assert json.loads(run("check", data_folder / "mlqa", "--json").stdout)["questions"]["ar"] == 517


def test_check_prints_every_fault_with_file_and_record(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    answers = [{"text": "no\x1bne", "answer_start": 0}]
    qas = [{"id": "q", "question": "", "answers": answers}]
    content = {"data": [{"title": "A", "paragraphs": [{"context": "B", "qas": qas}]}]}
    path.write_text(json.dumps(content), encoding="utf-8")
    result = run("check", path)
    assert result.exit_code == 1
    place = "data[0].paragraphs[0].qas[0]"
    assert result.stdout.splitlines() == [
        f"{path}: {place}.question (id q): question is empty",
        f"{path}: {place}.answers[0] (id q): answer 'no\\x1bne' is not in the passage at "
        "character 0",
    ]
    assert result.stderr == "2 faults\n"
    found = run("check", path, "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["faults"][0] == {
        "file": str(path),
        "record": f"{place}.question (id q)",
        "message": "question is empty",
    }


def test_check_of_nothing(tmp_path: Path) -> None:
    result = run("check", tmp_path / "nowhere")
    assert (result.exit_code, result.stdout) == (1, f"{tmp_path / 'nowhere'}: does not exist\n")
