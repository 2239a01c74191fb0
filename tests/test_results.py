"""results/*.json say what their own per-seed values say."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from clrelkt.reports.records import Measured, UnknownRecord, read_record
from clrelkt.reports.targets import TargetSpec, read_targets_spec
from clrelkt.training import load_recipe

FOLDER = Path(__file__).parent.parent / "results"
FILES = sorted(FOLDER.glob("*.json"))
METRICS = ("hit_rate@1", "hit_rate@5", "hit_rate@10", "mrr@10")
TARGETS = [path for path in FILES if path.stem == "targets"]
RECORDS = [path for path in FILES if path not in TARGETS]
REPRODUCTIONS = [path for path in RECORDS if "stages" in json.loads(path.read_text("utf-8"))]
MEASURED = [path for path in FILES if "kind" in json.loads(path.read_text("utf-8"))]
ROWS = [path for path in RECORDS if isinstance(json.loads(path.read_text("utf-8")), list)]
OTHERS = [path for path in RECORDS if path not in [*MEASURED, *ROWS]]
SPEC = FOLDER / "targets.toml"
TARGET_KEYS = {"row", "target", "measured", "interval", "command", "commit", "hardware"}


def check(values: list[float], estimate: dict[str, Any]) -> None:
    assert estimate["seeds"] == len(values)
    assert estimate["mean"] == pytest.approx(np.mean(values), abs=1e-9)
    if len(values) == 1:
        return  # An interval, if there is one, is over questions, which are not in the record.
    spread = np.std(values, ddof=1) / math.sqrt(len(values))
    half = stats.t.ppf(0.975, len(values) - 1) * spread
    assert estimate["low"] == pytest.approx(np.mean(values) - half, abs=1e-9)
    assert estimate["high"] == pytest.approx(np.mean(values) + half, abs=1e-9)


@pytest.mark.parametrize("path", REPRODUCTIONS, ids=lambda path: path.stem)
def test_means_and_intervals_follow_from_the_seeds(path: Path) -> None:
    record = json.loads(path.read_text("utf-8"))
    assert record["stages"]
    for stage in record["stages"].values():
        rows, summary = stage["per_seed"], stage["summary"]
        assert len(rows) == len(record["seeds"]) == summary["seeds"]
        for metric in METRICS:
            for code in rows[0]["languages"]:
                values = [row["languages"][code][metric] for row in rows]
                check(values, summary["languages"][code][metric])
            for group in rows[0]["means"]:
                values = [row["means"][group][metric] for row in rows]
                check(values, summary["means"][group][metric])
            check([row["mean"][metric] for row in rows], summary["mean"][metric])


@pytest.mark.parametrize("path", REPRODUCTIONS, ids=lambda path: path.stem)
def test_a_language_mean_is_the_mean_of_its_languages(path: Path) -> None:
    record = json.loads(path.read_text("utf-8"))
    for stage in record["stages"].values():
        for row in stage["per_seed"]:
            every = [result["hit_rate@1"] for result in row["languages"].values()]
            assert row["mean"]["hit_rate@1"] == pytest.approx(np.mean(every), abs=1e-9)


@pytest.mark.parametrize("path", REPRODUCTIONS, ids=lambda path: path.stem)
def test_further_tests_follow_from_the_seeds(path: Path) -> None:
    record = json.loads(path.read_text("utf-8"))
    for by_stage in record.get("tests", {}).values():
        assert set(by_stage) <= set(record["stages"])
        for stage in by_stage.values():
            rows, summary = stage["per_seed"], stage["summary"]
            assert len(rows) == len(record["seeds"])
            assert summary
            for row in rows:
                assert set(row) == set(summary)
            for name, estimate in summary.items():
                check([row[name] for row in rows], estimate)


@pytest.mark.parametrize("path", TARGETS, ids=lambda path: path.stem)
def test_every_target_says_what_was_measured_and_how(path: Path) -> None:
    rows = json.loads(path.read_text("utf-8"))
    assert isinstance(rows, list)
    assert rows
    for row in rows:
        assert set(row) == TARGET_KEYS
        assert isinstance(row["measured"], int | float)
        assert not isinstance(row["measured"], bool)
        assert math.isfinite(row["measured"])
        if isinstance(row["interval"], list):
            low, high = row["interval"]
            assert low <= row["measured"] <= high
        for key in ("row", "command", "commit", "hardware"):
            assert isinstance(row[key], str)
            assert row[key]


def per_seed(row: dict[str, Any], stage: str | None) -> list[float]:
    """A row of the spec, as plain values, computed from the record that it names."""
    record = json.loads((FOLDER / row["record"]).read_text("utf-8"))
    if row.get("kind") == "languages":
        measured = [report[stage or "after"] for report in record["languages"].values()]
        seeds = [{m["translation"]["language"]: m["translation"] for m in measured}]
        table = [[seed[code]["to_english_hit_rate@1"] for code in row["values"]] for seed in seeds]
    else:
        block = record["tests"][row["test"]][stage or list(record["stages"])[-1]]
        table = [[seed[key] for key in row["values"]] for seed in block["per_seed"]]
    return list((np.min if row.get("least") else np.mean)(np.array(table), axis=1))


@pytest.mark.parametrize("path", TARGETS, ids=lambda path: path.stem)
def test_every_target_follows_from_the_record_that_it_names(path: Path) -> None:
    spec = tomllib.loads(SPEC.read_text("utf-8"))["targets"]
    rows = json.loads(path.read_text("utf-8"))
    assert [(row["row"], row["target"]) for row in rows] == [
        (wanted["row"], wanted["target"]) for wanted in spec
    ]
    for wanted, row in zip(spec, rows, strict=True):
        values = per_seed(wanted, wanted.get("stage"))
        if "over" in wanted:
            values = list(np.array(values) / np.array(per_seed(wanted, wanted["over"])))
        low, high = row["interval"] or (None, None)
        check(values, {"mean": row["measured"], "low": low, "high": high, "seeds": len(values)})
        assert (low is None) == (len(values) == 1)
        record = json.loads((FOLDER / wanted["record"]).read_text("utf-8"))
        assert row["command"] == record.get("command", wanted.get("command"))
        assert row["commit"] == record["environment"]["commit"]
        assert row["hardware"] == record["environment"]["hardware"]


@pytest.mark.parametrize("spec", read_targets_spec(SPEC), ids=lambda spec: spec.row)
def test_the_spec_names_what_the_recipes_measure(spec: TargetSpec) -> None:
    if spec.kind == "languages":
        assert set(spec.values) <= set(Path(spec.record).stem.split("-"))
        return
    recipe = load_recipe(Path(spec.record).stem)
    measured = {measurement.name: measurement for measurement in recipe.measurements or ()}
    assert spec.test in measured
    codes = {value.rpartition("/")[2] for value in spec.values if value.startswith("to_english/")}
    assert codes <= set(measured[spec.test].languages or ())


@pytest.mark.parametrize("path", [*REPRODUCTIONS, *TARGETS, *MEASURED], ids=lambda path: path.stem)
def test_the_command_line_can_show_it(path: Path) -> None:
    assert not isinstance(read_record(path), UnknownRecord)


def check_measured(path: Path) -> None:
    """A record of any kind says how it was measured, and shows something that was."""
    record = read_record(path)
    assert isinstance(record, Measured)
    assert record.kind
    assert record.command.startswith(("clrelkt ", "python bench/"))
    assert len(record.commit) >= 40
    assert record.hardware
    assert {"python", "clrelkt", "torch", "numpy"} <= {
        name for name, version in record.versions.items() if version
    }
    values = [value for table in record.tables for row in table.rows for value in row.values()]
    assert any(isinstance(value, float) for value in values)


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.stem)
def test_a_measurement_says_how_it_was_made(path: Path) -> None:
    check_measured(path)


MADE: dict[str, Any] = {
    "kind": "search",
    "command": "python bench/search.py --texts 4000 --record results/search.json",
    "systems": {"exact": {"recall@10": 0.9995}},
    "environment": {
        "python": "3.12.1",
        "packages": {"clrelkt": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6", "bm25s": None},
        "hardware": "2 CPU cores",
        "commit": "75a5b48ff86aa7744d674ef5ca85ba03c1974e14",
    },
}


def test_a_measurement_without_its_origin_does_not_pass(tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    path.write_text(json.dumps(MADE), encoding="utf-8")
    check_measured(path)
    environment = MADE["environment"]
    faulty = [
        MADE | {"command": "by hand"},
        MADE | {"systems": {"exact": {"recall@10": "high"}}},
        MADE | {"environment": environment | {"commit": None}},
        MADE | {"environment": environment | {"hardware": ""}},
        MADE | {"environment": environment | {"packages": {"clrelkt": "0.1.0"}}},
    ]
    for record in faulty:
        path.write_text(json.dumps(record), encoding="utf-8")
        with pytest.raises(AssertionError):
            check_measured(path)


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_a_record_names_its_command_weights_commit_and_hardware(path: Path) -> None:
    record = json.loads(path.read_text("utf-8"))
    # What ``languages add`` leaves beside an encoder has no command in it: the spec names that.
    spec = tomllib.loads(SPEC.read_text("utf-8"))["targets"]
    named = {row["record"]: row["command"] for row in spec if "command" in row}
    assert record.get("command", named.get(path.name, "")).startswith("clrelkt ")
    assert record["weights"]
    assert len(record["environment"]["commit"]) >= 40
    assert record["environment"]["hardware"]
    assert record["environment"]["packages"]["torch"]


@pytest.mark.parametrize("path", ROWS, ids=lambda path: path.stem)
def test_rows_of_benchmarks_say_how_they_were_measured(path: Path) -> None:
    rows = json.loads(path.read_text("utf-8"))
    assert rows
    for row in rows:
        low, high = row["spread"]
        assert low <= row["ratio"] <= high
        assert row["target"] > 0
        assert row["command"].startswith("python ")
        assert len(row["commit"]) >= 40
        assert row["hardware"]


def test_there_is_a_record() -> None:
    assert REPRODUCTIONS
