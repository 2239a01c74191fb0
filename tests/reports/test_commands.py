"""``clrelkt train`` and ``clrelkt report`` as a user meets them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from clrelkt.cli.main import main
from clrelkt.training import Recipe


def run_command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def short_recipe(tiny_recipe: Recipe, tmp_path: Path) -> Path:
    record = tiny_recipe.to_json()
    record["stages"] = record["stages"][:1]
    record["stages"][0]["optimisation"]["epochs"] = 1
    path = tmp_path / "short.json"
    path.write_text(json.dumps(record), "utf-8")
    return path


def train(recipe: Path, folder: Path, *more: str) -> int:
    options = ("--save-form", "whole", "--device", "cpu", "-o", str(folder))
    return run_command("train", str(recipe), *options, *more)


def test_training_ends_in_a_report_and_cards(short_recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert train(short_recipe, folder) == 0
    assert (folder / "report.html").read_text("utf-8").startswith("<!doctype html>")
    assert (folder / "encoders" / "warm-up" / "README.md").exists()


def test_a_run_on_dev_alone_has_a_report_of_dev(short_recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert train(short_recipe, folder, "--dev-only") == 0
    html = (folder / "report.html").read_text("utf-8")
    assert "No test question was looked at" in html
    assert "dev questions" in html
    assert json.loads((folder / "portrait.json").read_text("utf-8"))["split"] == "dev"


def test_a_report_that_cannot_be_made_is_no_fault_of_the_run(
    short_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("clrelkt.reports.finish.MAX_BYTES", 1000)
    folder = tmp_path / "run"
    assert train(short_recipe, folder) == 0
    assert (folder / "results.json").exists()
    assert not (folder / "report.html").exists()
    assert "more than 1,000" in capsys.readouterr().err


def test_the_report_of_every_seed(
    reported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        shutil.copytree(reported, tmp_path / "both" / f"seed-{seed}")
        (tmp_path / "both" / f"seed-{seed}" / "report.html").unlink()
    figures = tmp_path / "figures"
    assert run_command("report", str(tmp_path / "both"), "--figures", str(figures)) == 0
    for seed in (0, 1):
        page = tmp_path / "both" / f"seed-{seed}" / "report.html"
        assert page.read_bytes() == (reported / "report.html").read_bytes()
        assert (figures / f"seed-{seed}" / "map.png").exists()
    assert "report: " in capsys.readouterr().out


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("report", str(tmp_path)) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "run.json" in message
