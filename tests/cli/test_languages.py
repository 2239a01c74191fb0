from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from clrelkt.cli.main import main
from clrelkt.encoders import load_encoder

ADD = ["languages", "add", "muse"]
QUICK = ["--pieces", "150", "--epochs", "1", "--batch", "64", "--device", "cpu"]


@pytest.fixture(scope="module")
def parallel(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hundred sentence pairs of Greek and of German."""
    folder = tmp_path_factory.mktemp("pairs") / "few"
    for code in ("el", "de"):
        with gzip.open(data_folder / f"parallel/{code}/sentences.tsv.gz", "rt") as file:
            lines = file.readlines()[-300:]
        (folder / code).mkdir(parents=True)
        (folder / code / "sentences.tsv").write_text("".join(lines), encoding="utf-8")
    return folder


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message


def test_add_then_measure(
    parallel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "greek"
    with pytest.raises(SystemExit) as caught:
        main([*ADD, "el", "--parallel", str(parallel), "-o", str(folder), *QUICK, "--json"])
    assert caught.value.code == 0
    captured = capsys.readouterr()
    assert "warning: el has 300 sentence pairs; below 2,000" in captured.err
    record = json.loads(captured.out)
    assert record["output"] == str(folder)
    report = record["languages"]["el"]
    assert report["after"]["unknown"] < report["before"]["unknown"]
    assert record["settings"]["pieces"] == 150
    assert record["protected"] > 300
    stored = json.loads((folder / "languages.json").read_text())
    assert stored["languages"] == record["languages"]
    assert "el" in load_encoder(folder).languages

    measure = ["measure", "translations", str(folder), "--parallel", str(parallel)]
    with pytest.raises(SystemExit):
        main([*measure, "--languages", "de,el", "--held-out", "100", "--against", "muse", "--json"])
    found = json.loads(capsys.readouterr().out)["encoders"]
    after, before = found[str(folder)], found["muse"]
    assert [result["language"] for result in after] == ["de", "el"]
    assert after[0] == before[0]
    assert after[0]["to_english_hit_rate@1"] > 0.8
    # The sentences that were held out for the seed.
    assert after[1]["to_english_hit_rate@1"] == pytest.approx(
        report["after"]["translation"]["to_english_hit_rate@1"]
    )


def test_measure_prints_a_table(parallel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measure = ["measure", "translations", "muse", "--parallel", str(parallel)]
    with pytest.raises(SystemExit):
        main([*measure, "--languages", "de", "--held-out", "20"])
    assert "among 20" in capsys.readouterr().out
    message = refused([*measure, "--languages", "de", "--held-out", "2000"], capsys)
    assert "'de': 2000 pairs of sentences to be held out, but only" in message


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("de", "muse knows de already"),
        ("xx", "language 'xx' is not known"),
        ("ro", "no sentence pairs of 'ro'"),
    ],
)
def test_languages_that_cannot_be_added(
    parallel: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    code: str,
    expected: str,
) -> None:
    arguments = [*ADD, code, "--parallel", str(parallel), "-o", str(tmp_path / "out")]
    assert expected in refused(arguments, capsys)
    assert not (tmp_path / "out").exists()


def test_an_output_that_holds_something_else_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    arguments = [*ADD, "el", "--parallel", str(tmp_path / "none"), "-o", str(tmp_path)]
    assert "no encoder" in refused(arguments, capsys)


def test_too_few_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.sw.tsv"
    path.write_text("".join(f"cat {n}\tpaka {n}\n" for n in range(50)))
    arguments = [*ADD, "sw", "--parallel", str(path), "-o", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 1
    assert "'sw': 50 sentence pairs; at least 100" in capsys.readouterr().err
