"""Targets follow from a spec and the records beside it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scipy import stats

from clrelkt.cli.main import main
from clrelkt.cli.results import results
from clrelkt.errors import DataError
from clrelkt.reports.records import Target, Targets, read_record
from clrelkt.reports.targets import build_targets, read_targets_spec

COMMIT = "75a5b48ff86aa7744d674ef5ca85ba03c1974e14"
ENVIRONMENT = {"hardware": "1 x NVIDIA H200", "commit": COMMIT}
KEYS = ["row", "target", "measured", "interval", "command", "commit", "hardware"]
ROW: dict[str, Any] = {
    "row": "the mean",
    "target": 0.6,
    "record": "plus.json",
    "test": "pool",
    "values": ["a"],
}
LANGUAGES = {
    "row": "the least language",
    "target": 0.85,
    "record": "languages.json",
    "kind": "languages",
    "values": ["fi", "bn"],
}


def per_seed(**values: list[float]) -> dict[str, Any]:
    seeds = len(next(iter(values.values())))
    return {
        "per_seed": [{key: row[seed] for key, row in values.items()} for seed in range(seeds)],
        "summary": {},
    }


def reproduction() -> dict[str, Any]:
    return {
        "command": "clrelkt reproduce xquad --recipe xquad-plus --seeds 3",
        "environment": ENVIRONMENT,
        "stages": {"zero-shot": {}, "first": {}, "last": {}},
        "tests": {
            "pool": {
                "zero-shot": per_seed(a=[0.25, 0.25, 0.5], b=[0.5, 0.5, 0.5]),
                "first": per_seed(a=[0.3, 0.3, 0.3], b=[0.1, 0.1, 0.1]),
                "last": per_seed(a=[0.5, 0.75, 0.5], b=[0.7, 0.5, 0.9]),
            },
            "one": {"zero-shot": per_seed(a=[0.0]), "last": per_seed(a=[0.5])},
        },
    }


def added_languages() -> dict[str, Any]:
    def measure(rate: float) -> dict[str, Any]:
        return {"translation": {"to_english_hit_rate@1": rate, "from_english_hit_rate@1": 0.1}}

    return {
        "environment": ENVIRONMENT,
        "languages": {
            "fi": {"before": measure(0.25), "after": measure(0.75)},
            "bn": {"before": measure(0.125), "after": measure(0.875)},
        },
    }


def toml(rows: list[dict[str, Any]]) -> str:
    tables = []
    for row in rows:
        # Texts, numbers, lists and truth values look the same in JSON and in TOML.
        lines = [f"{key} = {json.dumps(value)}" for key, value in row.items()]
        tables.append("\n".join(["[[targets]]", *lines]))
    return "\n\n".join(tables)


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    (folder / "plus.json").write_text(json.dumps(reproduction()), encoding="utf-8")
    (folder / "languages.json").write_text(json.dumps(added_languages()), encoding="utf-8")
    path = folder / "targets.toml"
    path.write_text(toml(list(rows)), encoding="utf-8")
    return path


def only(folder: Path, **more: Any) -> Target:
    (row,) = build_targets(write(folder, ROW | more)).rows
    return row


def students(values: list[float]) -> object:
    """Return what equals the interval."""
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=sum(values) / len(values), scale=stats.sem(values)
    )
    return pytest.approx((low, high), abs=1e-9)


def test_a_value_of_the_last_stage(tmp_path: Path) -> None:
    row = only(tmp_path)
    assert row.measured == pytest.approx((0.5 + 0.75 + 0.5) / 3)
    assert row.interval == students([0.5, 0.75, 0.5])
    assert (row.row, row.target) == ("the mean", 0.6)
    assert row.command == "clrelkt reproduce xquad --recipe xquad-plus --seeds 3"
    assert (row.commit, row.hardware) == (COMMIT, "1 x NVIDIA H200")


def test_a_stage_that_is_named(tmp_path: Path) -> None:
    row = only(tmp_path, stage="first")
    assert (row.measured, row.interval) == (0.3, (0.3, 0.3))


def test_several_values_are_put_together_in_each_seed(tmp_path: Path) -> None:
    mean = only(tmp_path, values=["a", "b"])
    assert mean.measured == pytest.approx((0.6 + 0.625 + 0.7) / 3)
    assert mean.interval == students([0.6, 0.625, 0.7])
    least = only(tmp_path, values=["a", "b"], least=True)
    assert least.measured == pytest.approx(0.5)
    assert least.interval == (0.5, 0.5)


def test_a_ratio_is_taken_in_each_seed(tmp_path: Path) -> None:
    row = only(tmp_path, over="zero-shot")
    assert row.measured == pytest.approx((2 + 3 + 1) / 3)
    assert row.interval == students([2, 3, 1])
    least = only(tmp_path, over="zero-shot", values=["a", "b"], least=True)
    assert least.measured == pytest.approx((0.5 / 0.25 + 0.5 / 0.25 + 0.5 / 0.5) / 3)


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    row = only(tmp_path, test="one")
    assert (row.measured, row.interval) == (0.5, None)


def test_added_languages(tmp_path: Path) -> None:
    said = {"command": "clrelkt languages add muse fi bn"}
    path = write(
        tmp_path,
        LANGUAGES | said | {"row": "mean"},
        LANGUAGES | said | {"row": "least", "least": True},
        LANGUAGES | said | {"row": "before", "stage": "before"},
        LANGUAGES | said | {"row": "ratio", "values": ["bn"], "over": "before"},
    )
    rows = build_targets(path).rows
    assert [row.measured for row in rows] == [0.8125, 0.75, 0.1875, 7.0]
    assert {row.interval for row in rows} == {None}
    assert {row.command for row in rows} == {"clrelkt languages add muse fi bn"}


def test_a_record_that_says_its_command_is_believed(tmp_path: Path) -> None:
    assert only(tmp_path, command="another").command == reproduction()["command"]
    with pytest.raises(
        DataError, match=r"row 'the least language'.*does not say its command; name"
    ):
        build_targets(write(tmp_path, LANGUAGES))


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(results, [str(part) for part in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_writes_what_it_shows(tmp_path: Path) -> None:
    spec, output = (
        write(tmp_path, ROW, ROW | {"row": "one seed", "test": "one"}),
        tmp_path / "t.json",
    )
    text = run("--targets", spec, "-o", output)
    assert "the mean" in text
    assert "clrelkt reproduce xquad --recipe xquad-plus --seeds 3" in text
    rows = json.loads(output.read_text(encoding="utf-8"))
    assert [list(row) for row in rows] == [KEYS, KEYS]
    assert isinstance(rows[0]["interval"], list)
    assert rows[1]["interval"] is None
    assert json.loads(run("--targets", spec, "--json")) == rows
    again = read_record(output)
    assert isinstance(again, Targets)
    assert again.rows == build_targets(spec).rows


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    spec = write(tmp_path, ROW)
    for arguments in (["-o", "x.json"], [str(tmp_path), "--targets", str(spec)]):
        assert CliRunner().invoke(results, arguments).exit_code == 2


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (without(ROW, "row"), r"row 0: this target has no 'row'"),
        (without(ROW, "target"), r"row 'the mean': this target has no 'target'"),
        (without(ROW, "record"), r"row 'the mean': this target has no 'record'"),
        (without(ROW, "values"), r"row 'the mean': this target has no 'values'"),
        (without(ROW, "test"), r"row 'the mean'.*'test' is None, but a reproduction needs one"),
        (LANGUAGES | {"test": "pool"}, r"'test' is 'pool', but added languages have none"),
        (ROW | {"row": ""}, r"row 0: .*'row' is empty"),
        (ROW | {"row": 3}, r"row 0: .*'row' is 3, expected text"),
        (ROW | {"target": "much"}, r"'target' is 'much', expected a number"),
        (ROW | {"target": True}, r"'target' is True, expected a number"),
        (ROW | {"values": []}, r"'values' is empty"),
        (ROW | {"values": "a"}, r"'values' is 'a', expected a list of texts"),
        (ROW | {"values": [1]}, r"expected a list of texts"),
        (ROW | {"least": 1}, r"'least' is 1, expected true or false"),
        (ROW | {"kind": "other"}, r"'kind' is 'other', expected reproduction or languages"),
        (ROW | {"goal": 1}, r"'goal' is not known here; known: command, kind"),
        (ROW | {"record": "../plus.json"}, r"expected the name of a file beside it"),
        (ROW | {"record": "gone.json"}, r"row 'the mean': .*gone\.json: cannot be read: No such"),
        (ROW | {"test": "nosuch"}, r"row 'the mean': .*plus\.json.*no test 'nosuch'; .*pool, one"),
        (ROW | {"stage": "nosuch"}, r"no stage 'nosuch'; there are zero-shot, first, last"),
        (ROW | {"over": "nosuch"}, r"row 'the mean': .*no stage 'nosuch'"),
        (ROW | {"values": ["c"]}, r"row 'the mean': .*no value 'c'; there are a, b"),
        (ROW | {"test": "one", "over": "zero-shot"}, r"'zero-shot' is 0 in one seed"),
        (LANGUAGES | {"values": ["te"]}, r"no value 'te'; there are fi, bn"),
        (LANGUAGES | {"record": "plus.json"}, r"this record of languages has no 'languages'"),
        (ROW | {"record": "languages.json"}, r"no test 'pool'; there are none"),
        (ROW | {"record": "list.json"}, r"row 'the mean': .*list\.json.*does not fit"),
        (ROW | {"record": "broken.json"}, r"row 'the mean': .*broken\.json: is not JSON"),
    ],
)
def test_a_fault_gives_one_message(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "broken.json").write_text("{")
    path = write(tmp_path, {"command": "clrelkt languages add"} | row)
    with pytest.raises(DataError, match=message) as caught:
        build_targets(path)
    assert str(caught.value).startswith(f"{path}: row ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"tables \[\[targets\]\] expected"),
        ("targets = 3", r"tables \[\[targets\]\] expected"),
        ("targets = []", r"tables \[\[targets\]\] expected"),
        ("[[target]]", r"tables \[\[targets\]\] expected"),
        ("[[targets]", "is not TOML"),
        ("targets = [3]", "row 0: .*does not fit"),
        (toml([ROW, ROW]), "row 'the mean' is there twice; rename one of them"),
    ],
)
def test_a_spec_that_is_none(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "targets.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"targets\.toml.*{message}"):
        read_targets_spec(path)


def test_a_spec_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["results", "--targets", str(tmp_path / "gone.toml")])
    message = capsys.readouterr().err
    assert message.startswith(f"error: {tmp_path / 'gone.toml'}: cannot be read: No such file")
    assert len(message.strip().splitlines()) == 1


def test_numbers_that_are_none(tmp_path: Path) -> None:
    record = reproduction()
    for value in (math.nan, "much", None):
        record["tests"]["pool"]["last"]["per_seed"][1]["a"] = value
        path = write(tmp_path, ROW)
        (tmp_path / "plus.json").write_text(json.dumps(record), encoding="utf-8")
        with pytest.raises(DataError, match=r"row 'the mean': .*plus\.json.*'a' is "):
            build_targets(path)
