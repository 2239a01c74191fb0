"""Runs side by side."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clrelkt.cli.main import main
from clrelkt.errors import DataError, UnknownNameError
from clrelkt.evaluation import compare
from clrelkt.reports.comparison import compare_runs
from clrelkt.reports.run_folder import read_finished_run

Change = Callable[[dict[str, Any]], None]


def changed(source: Path, target: Path, change: Change, name: str = "results.json") -> Path:
    """Copy a run and change a file of it."""
    shutil.copytree(source, target)
    path = target / name
    record = json.loads(path.read_text("utf-8"))
    change(record)
    path.write_text(json.dumps(record), "utf-8")
    return target


def better(record: dict[str, Any]) -> None:
    """Let the student find every German gold first."""
    row = record["results"]["student"]["languages"]["de"]
    row["ranks"] = [[parallel_id, 1] for parallel_id, _ in row["ranks"]]
    row["hit_rate@1"] = 1.0


@pytest.fixture
def pair(reported: Path, tmp_path: Path) -> tuple[Path, Path]:
    return reported, changed(reported, tmp_path / "better", better)


def test_differences_are_those_of_the_paired_test(pair: tuple[Path, Path]) -> None:
    first, second = pair
    found = compare_runs([first, second])
    expected = compare(
        read_finished_run(second).own_results(), read_finished_run(first).own_results()
    )
    against = found.against_first["better"]
    assert against.languages == expected.languages
    assert against.mean == expected.mean
    assert found.summaries["better"].languages["de"]["hit_rate@1"].mean == 1.0
    assert found.settings == {}
    assert found.notes == ()


def test_one_stage_of_all_runs(pair: tuple[Path, Path]) -> None:
    found = compare_runs(pair, stage="teacher", metric="mrr@10")
    assert found.against_first["better"].mean.difference == 0
    assert {run.stage for run in found.runs} == {"encoders/teacher"}
    with pytest.raises(UnknownNameError, match="no stage 'nosuch'"):
        compare_runs(pair, stage="nosuch")


def test_other_questions_are_compared_without_a_test(reported: Path, tmp_path: Path) -> None:
    def ask_others(record: dict[str, Any]) -> None:
        for stage in record["results"].values():
            for row in stage["languages"].values():
                row["ranks"] = [[f"other {id_}", rank] for id_, rank in row["ranks"]]

    other = changed(reported, tmp_path / "other", ask_others)
    found = compare_runs([reported, other])
    assert found.against_first == {}
    assert len(found.notes) == 1
    assert "no test of significance" in found.notes[0]


def test_seeds_of_a_reproduction_are_averaged(reported: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    shutil.copytree(reported, both / "seed-0")
    changed(reported, both / "seed-1", better)
    found = compare_runs([reported, both])
    rates = [
        read_finished_run(both / f"seed-{seed}").own_results().languages["de"].hit_rate_at_1
        for seed in (0, 1)
    ]
    estimate = found.runs[1].summary.languages["de"]["hit_rate@1"]
    assert estimate.seeds == 2
    assert estimate.mean == pytest.approx(sum(rates) / 2)
    against = found.against_first["both"].languages["de"]
    assert against.first == pytest.approx(sum(rates) / 2)
    assert against.second == pytest.approx(rates[0])


def test_settings_that_differ_are_named(reported: Path, tmp_path: Path) -> None:
    def slower(record: dict[str, Any]) -> None:
        record["seed"] = 4
        record["recipe"]["stages"][1]["optimisation"]["learning_rate"] = 3e-5

    other = changed(reported, tmp_path / "other", slower, "run.json")
    assert compare_runs([reported, other]).settings == {
        "seed": ("0", "4"),
        "teacher: optimisation.learning_rate": ("0.0001", "3e-05"),
    }


@pytest.mark.parametrize("folders", [1, "twice"])
def test_at_least_two_different_runs(reported: Path, folders: int | str) -> None:
    with pytest.raises(DataError, match=r"at least two|given twice"):
        compare_runs([reported] * (2 if folders == "twice" else 1))


def test_the_command_prints_a_table_and_writes_a_page(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    arguments = ["compare", str(pair[0]), str(pair[1])]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "-o", str(page)])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "1.00" in shown
    assert "better less run, all: +" in shown
    html = page.read_text("utf-8")
    assert "Content-Security-Policy" in html
    assert "better less run" in html
    with pytest.raises(SystemExit):
        main([*arguments, "--json"])
    record = json.loads(capsys.readouterr().out)
    assert [run["label"] for run in record["runs"]] == ["run", "better"]
    assert record["against_first"]["better"]["languages"]["de"]["first"] == 1.0
