from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from clrelkt.cli.results import results
from clrelkt.errors import DataError
from clrelkt.evaluation import LanguageResult, Results, aggregate
from clrelkt.evaluation.results import groups_of
from clrelkt.evaluation.seeds import over_seeds

CODES = ["en", "ar", "de", "el", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh"]
STAGES = ["bm25", "zero-shot", "warm-up", "teacher", "student", "student-unsupported"]
TARGET = {
    "row": "student, supported languages",
    "target": 0.826,
    "measured": 0.8304,
    "interval": [0.82, 0.841],
    "command": "clrelkt reproduce xquad --seeds 5",
    "commit": "75a5b48ff86aa7744d674ef5ca85ba03c1974e14",
    "hardware": "2 x NVIDIA H200",
}


def evaluated(seed: int) -> Results:
    rng = np.random.default_rng(seed)
    ids = [str(number) for number in range(40)]
    languages = {code: LanguageResult.from_ranks(rng.integers(1, 14, 40), ids) for code in CODES}
    return Results.of(
        languages,
        groups_of(languages, frozenset({"ar", "de", "es", "ru", "th", "tr", "zh"}), "en"),
        encoder="muse",
        weights="6-bit",
        corpus="xquad",
        pool="document",
        document_score="whole",
        split="test",
    )


def reproduction(**more: Any) -> dict[str, Any]:
    stages = {}
    for place, stage in enumerate(STAGES):
        rows = [evaluated(10 * place + seed) for seed in range(3)]
        stages[stage] = {
            "per_seed": [row.to_json() for row in rows],
            "summary": aggregate(rows).to_json(),
        }
    return {
        "format": 1,
        "command": "clrelkt reproduce xquad --seeds 3 --split-seed 0",
        "recipe": {},
        "corpus": "xquad",
        "weights": "6-bit",
        "split_seed": 0,
        "seeds": [0, 1, 2],
        "environment": {"hardware": "2 x NVIDIA H200", "commit": "75a5b48ff86aa"},
        "stages": stages,
        **more,
    }


def block(names: dict[str, list[float]]) -> dict[str, Any]:
    return {
        "per_seed": [{name: row[seed] for name, row in names.items()} for seed in range(3)],
        "summary": {name: over_seeds(row).to_json() for name, row in names.items()},
    }


def further() -> dict[str, Any]:
    named = {
        "x_to_y/map": [0.41, 0.42, 0.43],
        "x_to_y/map/supported": [0.6, 0.6, 0.6],
        "x_to_y/map/de": [0.5, 0.51, 0.52],
        "neg_rank_distance": [-512.3, -520.0, -503.4],
    }
    return {"mixed-pool": {stage: block(named) for stage in ["student", "zero-shot"]}}


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(results, [str(part) for part in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def table_lines(text: str) -> list[str]:
    """The lines but for commands, which are not broken."""
    return [line for line in text.splitlines() if "clrelkt" not in line]


def test_a_reproduction_has_its_stages_and_the_papers_figures(tmp_path: Path) -> None:
    path = write(tmp_path / "xquad.json", reproduction())
    text = run(path)
    assert max(map(len, table_lines(text))) <= 80
    assert "\x1b" not in text
    assert "clrelkt reproduce xquad --seeds 3 --split-seed 0\n" in text
    assert "75a5b48ff8, 2 x NVIDIA H200, 6-bit" in text
    for stage in STAGES:
        assert any(line.startswith(stage) for line in text.splitlines())
    assert "CL-ReLKT (paper)" in text
    assert text.count("mrr@10") >= 1


def test_figures_of_another_pool_do_not_stand_beside_the_papers(tmp_path: Path) -> None:
    record = reproduction()
    for stage in record["stages"].values():
        for row in stage["per_seed"]:
            row["document_score"] = "best-passage"
    assert "(paper)" not in run(write(tmp_path / "xquad.json", record))


def test_further_tests_have_a_column_a_stage(tmp_path: Path) -> None:
    path = write(tmp_path / "xquad.json", reproduction(tests=further()))
    lines = run(path).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("mixed-pool"))
    assert lines[start + 1].split() == ["zero-shot", "student"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[start + 3 :] if line.strip()}
    half = over_seeds([0.41, 0.42, 0.43]).half_width
    assert rows["x_to_y/map"] == [f".420±{half:.3f}".replace("0.", ".")] * 2
    assert rows["x_to_y/map/supported"] == [".600", ".600"]
    assert rows["neg_rank_distance"][0].startswith("-511.9±")
    assert "x_to_y/map/de" not in rows
    assert "x_to_y/map/de" in run(path, "--every-language")


def test_many_stages_of_a_test_are_broken_over_tables(tmp_path: Path) -> None:
    names = {"a rather long name of what was measured": [0.41, 0.42, 0.43]}
    tests = {"long": {f"a stage with number {n}": block(names) for n in range(6)}}
    text = run(write(tmp_path / "xquad.json", reproduction(tests=tests)))
    assert max(map(len, table_lines(text))) <= 80
    assert all(f"a stage with number {n}" in text for n in range(6))


def test_targets_stand_beside_what_was_measured(tmp_path: Path) -> None:
    other = {
        **TARGET,
        "row": "a row whose name is so long that it has to be broken over several lines",
        "target": "at least .90",
        "interval": None,
        "commit": "",
        "hardware": "",
    }
    path = write(tmp_path / "targets.json", [TARGET, other, {**TARGET, "interval": "± .01"}])
    text = run(path)
    assert max(map(len, table_lines(text))) <= 80
    row = next(line.split() for line in text.splitlines() if line.startswith("student"))
    assert row[-6:] == [".826", ".830", ".820", "to", ".841", "[1]"]
    assert "[1] clrelkt reproduce xquad --seeds 5 (75a5b48ff8, 2 x NVIDIA H200)\n" in text
    assert "[2] clrelkt reproduce xquad --seeds 5\n" in text
    assert "[3]" not in text
    assert "at least .90" in text
    assert "± .01" in text


def test_json_has_everything_but_the_seeds(tmp_path: Path) -> None:
    write(tmp_path / "b.json", reproduction(tests=further()))
    write(tmp_path / "a.json", [TARGET])
    write(tmp_path / "c.json", {"something": "else"})
    targets, record = json.loads(run(tmp_path, "--json"))
    assert targets == {"kind": "targets", "name": "a", "rows": [TARGET]}
    assert (record["kind"], record["name"], record["seeds"]) == ("reproduction", "b", [0, 1, 2])
    original = reproduction(tests=further())
    for stage in STAGES:
        assert record["stages"][stage] == original["stages"][stage]["summary"]
    for stage, row in original["tests"]["mixed-pool"].items():
        assert record["tests"]["mixed-pool"][stage] == row["summary"]


def measured(**more: Any) -> dict[str, Any]:
    return {
        "kind": "search",
        "command": "python bench/search.py --texts 4000",
        "texts": 4000,
        "systems": {
            "exact, 8 bits": {"recall@10": 0.99951, "ms": 12.25, "times as fast": 1.5},
            "another system": {"recall@10": 1.0, "ms": 2048.7},
        },
        "loads": {
            "batched": [{"clients": 1, "rate": 90.5}, {"clients": 64, "rate": 180.25}],
            "alone": [{"clients": 1, "rate": 88.0}, {"clients": 64, "rate": 91.0}],
        },
        "exports": [{"form": "onnx", "languages": {"de": {"cosine": 0.5}}, "means": {"all": 0.75}}],
        "seconds": {"rounds": [1.5, 2.0], "failures": None},
        "environment": {
            "python": "3.12.1",
            "packages": {"torch": "2.13.0", "bm25s": None},
            "hardware": "2 CPU cores",
            "commit": "75a5b48ff86aa",
        },
        **more,
    }


def rows_of(text: str) -> dict[str, list[str]]:
    """The cells of every line, which are two spaces or more apart, by the first."""
    lines = [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
    return {first: rest for first, *rest in lines}


def test_any_other_measurement_is_shown_by_the_names_it_has(tmp_path: Path) -> None:
    path = write(tmp_path / "search.json", measured())
    text = run(path)
    assert max(map(len, text.splitlines())) <= 80
    assert "search (search)\npython bench/search.py --texts 4000\n" in text
    assert "75a5b48ff8, 2 CPU cores, python 3.12.1, torch 2.13.0\n" in text
    rows = rows_of(text)
    assert rows["texts"] == ["4,000"]
    # What one system alone has stands below the table.
    assert rows["another system"] == ["1", "2,049"]
    assert "exact, 8 bits   0.99951" in re.sub(" +", lambda m: m[0][:3], text)
    assert rows["exact, 8 bits"] == ["times as fast", "1.5"]
    assert rows["batched 64"] == ["180.25"]
    assert rows["alone 1"] == ["88"]
    assert rows["onnx"] == ["0.75"]
    assert rows["rounds"] == ["1.5, 2"]
    assert "languages/de/cosine" not in text
    assert "languages/de/cosine" in run(path, "--every-language")


def test_many_columns_of_a_measurement_are_broken_over_tables(tmp_path: Path) -> None:
    row = {f"a column with the number {n}": n / 7 for n in range(9)}
    record = measured(systems={f"a system with the number {n}": row for n in range(8)})
    text = run(write(tmp_path / "search.json", record))
    assert max(map(len, text.splitlines())) <= 80
    assert all(text.count(name) == 1 for name in row)
    assert text.count(f"{3 / 7:.5g}") == 8


def test_a_measurement_as_json_has_every_value(tmp_path: Path) -> None:
    (record,) = json.loads(run(write(tmp_path / "search.json", measured()), "--json"))
    assert (record["kind"], record["name"]) == ("search", "search")
    assert record["versions"] == {"python": "3.12.1", "torch": "2.13.0", "bm25s": None}
    tables = {table["name"]: table["rows"] for table in record["tables"]}
    assert tables[""] == [{"": "texts", "value": 4000}]
    assert tables["systems"][1] == {"": "another system", "recall@10": 1.0, "ms": 2048.7}
    assert tables["loads"][3] == {"": "alone", "clients": 64, "rate": 91.0}
    assert tables["exports"] == [{"form": "onnx", "languages/de/cosine": 0.5, "means/all": 0.75}]


def test_the_folder_results_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no folder 'results' here"):
        run()
    write(tmp_path / "results" / "targets.json", [TARGET])
    assert "student, supported languages" in run()


def without(record: dict[str, Any], *keys: str) -> dict[str, Any]:
    *above, last = keys
    place = record
    for key in above:
        place = place[key]
    del place[last]
    return record


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "is not JSON"),
        ('"text"', "is not a record"),
        ({"something": "else"}, "is not a record"),
        ({"stages": {}}, "'stages' is empty"),
        ({"stages": 3}, "'stages' is 3, expected an object"),
        (without(reproduction(), "command"), "has no 'command'"),
        (without(reproduction(), "environment", "hardware"), "has no 'hardware'"),
        (without(reproduction(), "stages", "teacher", "summary"), "has no 'summary'"),
        (without(reproduction(), "stages", "teacher", "summary", "means"), "has no 'means'"),
        (reproduction(seeds=3), "value that does not fit"),
        (reproduction(tests={"t": {"student": {}}}), "has no 'summary'"),
        (reproduction(tests={"t": {"student": {"summary": {"a": 1}}}}), "does not fit"),
        (reproduction(tests=[1]), "does not fit"),
        ([{**TARGET, "measured": "much"}], "row 0: .*'measured' is 'much', expected a number"),
        ([{**TARGET, "measured": float("nan")}], "'measured' is nan"),
        ([{**TARGET, "interval": [1]}], "row 0: .*does not fit"),
        ([{**TARGET, "interval": 3}], "'interval' is 3"),
        ([{**TARGET, "command": None}], "'command' is None, expected text"),
        ([TARGET, without(dict(TARGET), "hardware")], "row 1: this target has no 'hardware'"),
        (without(measured(), "command"), "this record has no 'command'"),
        (without(measured(), "environment"), "this record has no 'environment'"),
        (without(measured(), "environment", "packages"), "has no 'packages'"),
        (measured(kind=3), "'kind' is 3, expected text"),
        (measured(systems={"a": {"ms": float("nan")}}), "'ms' is nan, expected a number"),
        ([3], "row 0: .*does not fit"),
    ],
)
def test_a_faulty_file_gives_one_message(tmp_path: Path, value: Any, message: str) -> None:
    path = write(tmp_path / "faulty.json", value)
    with pytest.raises(DataError, match=f"faulty.json.*{message}") as caught:
        run(path)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json: cannot be read: No such file"):
        run(tmp_path / "gone.json")
    with pytest.raises(DataError, match="no record here"):
        run(tmp_path)
