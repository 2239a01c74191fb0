"""``clrelkt export`` and ``clrelkt measure exports``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clrelkt.cli.main import main


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    captured = capsys.readouterr()
    assert ended.value.code == 0, captured.err
    return captured.out


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two questions in two languages, in SQuAD form."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for code, text in {"en": "Who wrote about {}?", "de": "Wer schrieb über {}?"}.items():
        articles = [
            {
                "title": subject,
                "paragraphs": [
                    {
                        "context": f"{subject} was described by Ada.",
                        "qas": [
                            {
                                "id": f"q-{subject}",
                                "question": text.format(subject),
                                "answers": [{"text": subject, "answer_start": 0}],
                            }
                        ],
                    }
                ],
            }
            for subject in ("Tea", "Rain")
        ]
        (folder / f"small.{code}.json").write_text(json.dumps({"data": articles}), "utf-8")
    return folder


def test_export_checks_what_it_wrote(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "export"
    out = printed(
        capsys, *("export", "muse", "--to", "onnx-int8", "-o", str(target)),
        *("--corpus", str(corpus), "--json"),
    )  # fmt: skip
    record = json.loads(out)
    assert record["form"] == "onnx-int8"
    assert record["folder"] == str(target)
    assert set(record["languages"]) == {"en", "de"}
    assert 0.99 < record["least_cosine"] < 1
    assert record["megabytes"] < 73
    assert (target / "model.onnx").is_file()


def test_a_wrong_corpus_is_told_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", "muse", "--to", "onnx", "-o", str(tmp_path / "x"), "--corpus", "nosuch"])
    assert ended.value.code == 1
    assert "nosuch" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_measure_exports_writes_a_record(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results" / "export.json"
    out = printed(
        capsys, *("measure", "exports", "muse", "--to", "safetensors-fp16", "--to", "delta-int6"),
        *("--corpus", str(corpus), "-o", str(path)),
    )  # fmt: skip
    record = json.loads(path.read_text("utf-8"))
    assert [row["form"] for row in record["exports"]] == ["safetensors-fp16", "delta-int6"]
    assert record["command"].startswith("clrelkt measure exports muse --to safetensors-fp16 --to")
    assert record["environment"]["packages"]["clrelkt"]
    # Nothing differs from the base, so that a delta holds nothing and loses nothing.
    assert record["exports"][1]["megabytes"] < 0.01
    assert record["exports"][1]["least_cosine"] == pytest.approx(1, abs=1e-6)
    assert "delta-int6" in out


def test_a_package_with_the_card_of_its_encoder(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from clrelkt.encoders import load_encoder

    load_encoder("muse").save(tmp_path / "mine", form="delta")
    (tmp_path / "mine" / "README.md").write_text("# The card of mine\n")
    target = tmp_path / "clrelkt-mine"
    arguments = ("export", str(tmp_path / "mine"), "--to", "package", "--name", "mine")
    out = printed(capsys, *arguments, "-o", str(target), "--corpus", str(corpus), "--json")
    assert json.loads(out)["form"] == "delta-int6"
    assert (target / "README.md").read_text("utf-8") == "# The card of mine\n"
    assert 'mine = "clrelkt_mine:folder"' in (target / "pyproject.toml").read_text("utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["export", "muse", "--to", "package", "-o", str(target)])
    assert ended.value.code == 2
    assert "--to package needs a --name" in capsys.readouterr().err
