"""The trained encoder that comes along in packages/."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from clrelkt.corpora import load_corpus, take_split
from clrelkt.encoders import best_encoder, load_encoder
from clrelkt.encoders.installed import installed_encoders
from clrelkt.evaluation import EvaluationSettings, evaluate
from clrelkt.training.provenance import describe_encoder

PACKAGE = Path(__file__).parents[2] / "packages" / "clrelkt-muse-xquad"
MEGABYTES = 35


def test_it_is_small_enough_to_travel(tmp_path: Path) -> None:
    files = [file for file in PACKAGE.rglob("*") if file.is_file() and "build" not in file.parts]
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for file in files:
            packed.write(file)
    assert (tmp_path / "packed.zip").stat().st_size <= MEGABYTES * 1e6


def test_it_finds_what_its_card_says(data_folder: Path) -> None:
    if "muse-xquad" not in installed_encoders():
        pytest.skip("not installed: pip install --no-deps packages/clrelkt-muse-xquad")
    encoder = load_encoder("best")
    assert encoder.name == best_encoder() == "muse-xquad"
    # A run says which encoder ``best`` was.
    assert describe_encoder("best") == describe_encoder("muse-xquad") is not None
    questions = take_split(load_corpus(data_folder / "xquad"), "test", by="document")
    languages = ("ar", "en", "hi")
    found = evaluate(
        encoder,
        questions,
        EvaluationSettings(document_score="best-passage"),
        languages=languages,
    )
    card = (PACKAGE / "README.md").read_text("utf-8")
    for code in languages:
        row = re.search(rf"\({code}\) \| 254 \|[^|]*\|[^|]*\| ([.0-9]+)", card)
        assert row is not None
        assert found.languages[code].hit_rate_at_1 == pytest.approx(float(row[1]), abs=0.025)


def test_without_it_best_is_muse_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clrelkt.encoders.installed.installed_encoders", dict)
    assert best_encoder() == "muse"
