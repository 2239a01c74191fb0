from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clrelkt.cli.main import main
from clrelkt.errors import DataError
from clrelkt.reports.performance import merge_rows
from clrelkt.reports.records import Performance, read_record


def row(**changes: Any) -> dict[str, Any]:
    return {
        "work": "encoding",
        "against": "a peer",
        "target": 3,
        "ratio": 3.5,
        "spread": [3.25, 3.75],
        "ours": 7000.0,
        "theirs": 2000.0,
        "unit": "texts/s",
        "peak_memory": 2**30,
        "command": "python bench/encoding.py",
        "commit": "abc",
        "hardware": "a card",
    } | changes


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_a_later_row_of_the_same_work_and_hardware_counts(tmp_path: Path) -> None:
    one = write(tmp_path / "a.json", [row(), row(work="mining")])
    two = write(tmp_path / "b.json", row(ratio=4.0, packages={"torch": "2"}))
    three = write(tmp_path / "c.json", row(hardware="another card"))
    merged = merge_rows([one, two, three])
    found = [(item.work, item.hardware, item.ratio) for item in merged.rows]
    assert found == [
        ("encoding", "a card", 4.0),
        ("encoding", "another card", 3.5),
        ("mining", "a card", 3.5),
    ]
    whole = write(tmp_path / "whole.json", [item.to_json() for item in merged.rows])
    read = read_record(whole)
    assert isinstance(read, Performance)
    assert read.rows == merged.rows


def test_a_command_names_files_but_no_folders(tmp_path: Path) -> None:
    told = row() | {"command": "python bench/x.py --device cuda --row /some/where/row.json"}
    merged = merge_rows([write(tmp_path / "rows.json", [told])])
    assert merged.rows[0].command == "python bench/x.py --device cuda --row row.json"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"ratio": float("nan")}, "'ratio' is nan, expected a number"),
        ({"target": "3"}, "'target' is '3', expected a number"),
        ({"spread": [3.2]}, "row 1: this row has a value that does not fit"),
        ({"commit": None}, "'commit' is None, expected text"),
        ({"peak_memory": True}, "'peak_memory' is True"),
    ],
)
def test_rows_with_faults(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    file = write(tmp_path / "rows.json", [row(), row(**changes)])
    with pytest.raises(DataError, match=r"rows\.json: row 1") as caught:
        merge_rows([file])
    assert fault in str(caught.value)


def test_what_is_no_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows of a benchmark"):
        merge_rows([write(tmp_path / "rows.json", {"work": 1})])
    lacking = row()
    del lacking["ours"]
    with pytest.raises(DataError, match="row 0: this row has no 'ours'"):
        merge_rows([write(tmp_path / "rows.json", lacking)])


def test_the_command_merges_into_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = write(tmp_path / "performance.json", [row(), row(work="mining")])
    new = write(tmp_path / "new.json", row(ratio=2.0))
    with pytest.raises(SystemExit) as ended:
        main(["results", "--performance", str(new), "-o", str(output), "--json"])
    assert ended.value.code == 0
    rows = json.loads(output.read_text())
    assert json.loads(capsys.readouterr().out) == rows
    assert [(item["work"], item["ratio"]) for item in rows] == [("encoding", 2.0), ("mining", 3.5)]
    with pytest.raises(SystemExit):
        main(["results", str(output)])
    shown = capsys.readouterr().out
    assert "mining" in shown
    assert "3.50" in shown
    before = output.read_text()
    write(new, row(ratio="fast"))
    with pytest.raises(SystemExit) as ended:
        main(["results", "--performance", str(new), "-o", str(output)])
    assert ended.value.code == 1
    assert "'ratio' is 'fast', expected a number" in capsys.readouterr().err
    assert output.read_text() == before
