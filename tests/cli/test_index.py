"""``clrelkt index`` and ``clrelkt search`` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from clrelkt.cli.main import cli
from clrelkt.errors import DataError, SearchIndexError, SettingsError

ROWS: list[dict[str, object]] = [
    {"id": "a", "title": "Fleming", "text": "Fleming was a doctor. He discovered penicillin."},
    {"id": "b", "text": "Die alte Brücke hat sieben Bögen.", "year": 1209},
]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(item) for item in arguments], catch_exceptions=False)


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def index(tmp_path: Path) -> Path:
    done = run("index", "muse", write(tmp_path / "d.jsonl", ROWS), "-o", tmp_path / "i")
    assert done.exit_code == 0, done.output
    assert "2 documents, 2 passages" in done.stdout
    return tmp_path / "i"


def test_three_forms_of_a_search(index: Path, tmp_path: Path) -> None:
    shown = run("search", index, "¿Quién descubrió la penicilina?", "-k", 1)
    assert shown.stdout.startswith("1. Fleming")
    assert "**He discovered penicillin.**" in shown.stdout
    record = json.loads(run("search", index, "bridge", "--json", "--where", "year=1209").stdout)
    assert record["version"] == 1
    assert [(hit["document_id"], hit["language"]) for hit in record["hits"]] == [("b", "de")]
    questions = write(tmp_path / "q.jsonl", [{"id": 5, "question": "Who found penicillin?"}])
    (line,) = run("search", index, "--questions", questions, "-k", 1).stdout.splitlines()
    assert json.loads(line)["id"] == 5
    assert json.loads(line)["hits"][0]["document_id"] == "a"


def test_an_index_is_changed(index: Path, tmp_path: Path) -> None:
    more = write(tmp_path / "more.jsonl", [{"id": "c", "text": "Bees make honey.", "lang": "en"}])
    assert json.loads(run("index", "add", index, more, "--json").stdout)["documents"] == 3
    with pytest.raises(DataError, match="'c' is in"):
        run("index", "add", index, more)
    assert run("index", "add", index, more, "--replace").exit_code == 0
    assert "1 documents deleted" in run("index", "delete", index, "b").stdout
    assert run("index", "copy", index, "hnsw").exit_code == 0
    info = json.loads(run("index", "info", index, "--json").stdout)
    assert (info["documents"], info["store"], info["encoder"]) == (2, "hnsw", "muse")
    assert run("index", "compact", index).exit_code == 0
    found = json.loads(run("search", index, "Who makes honey?", "--json", "-k", 1).stdout)
    assert found["hits"][0]["document_id"] == "c"


def test_several_devices_make_the_same_index(tmp_path: Path) -> None:
    found = []
    for gpus in (1, 2):
        where = tmp_path / f"i{gpus}"
        share = ("--device", "cpu", "--gpus", gpus)
        assert run("index", "muse", "bundled", "-o", where, *share).exit_code == 0
        hits = run("search", where, "Who discovered penicillin?", "--json", "-k", 5).stdout
        found.append([(hit["passage_id"], hit["score"]) for hit in json.loads(hits)["hits"]])
    assert [id_ for id_, _ in found[0]] == [id_ for id_, _ in found[1]]
    for (_, one), (_, other) in zip(*found, strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    with pytest.raises(SettingsError, match=r"gpus 9: torch finds \d+ here"):
        run("index", "muse", "bundled", "-o", tmp_path / "i9", "--gpus", 9)


def test_what_cannot_be_done(index: Path, tmp_path: Path) -> None:
    with pytest.raises(SearchIndexError, match="is no index"):
        run("search", tmp_path, "bees")
    with pytest.raises(DataError, match="the question is empty"):
        run("search", index, " ")
    assert "expected one QUESTION" in run("search", index).stderr
    assert "KEY=VALUE expected" in run("search", index, "bees", "--where", "year").stderr
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "fine"}\n{"txt": 1}\n', "utf-8")
    with pytest.raises(DataError, match=r"bad\.jsonl: line 2: has no text"):
        run("index", "add", index, bad)
    skipped = run("index", "add", index, bad, "--skip-faults")
    assert "left out: " in skipped.stderr
    assert "3 documents" in skipped.stdout
