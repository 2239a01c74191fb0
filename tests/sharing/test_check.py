from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from clrelkt.corpora import Corpus, load_corpus
from clrelkt.encoders import MuseEncoder
from clrelkt.encoders.protocol import TextKind
from clrelkt.evaluation import EvaluationSettings, evaluate
from clrelkt.sharing import ExportChecker, export_encoder, open_export
from clrelkt.sharing.tables import check_table, exports_table, size_and_speed


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    whole = load_corpus("bundled").in_languages(["en", "de", "hi"])
    first = {question.parallel_id for question in whole.questions_in("en")[:20]}
    questions = tuple(question for question in whole.questions if question.parallel_id in first)
    return replace(whole, questions=questions)


class Turned:
    """Mostly the vectors of an encoder, but German questions get each other's."""

    name, weights, dimension = "turned", "turned", 512

    def __init__(self, encoder: MuseEncoder, german: Sequence[str]) -> None:
        self.languages = encoder.languages
        self._encoder = encoder
        self._next = dict(zip(german, [*german[1:], german[0]], strict=True))

    def encode(
        self, texts: Sequence[str], kind: TextKind = "passage", *, progress: bool = False
    ) -> np.ndarray:
        return self._encoder.encode([self._next.get(text, text) for text in texts], kind)


def test_each_language_is_compared_with_the_original(
    muse: MuseEncoder, corpus: Corpus, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"x" * 2_500_000)
    german = [question.text for question in corpus.questions_in("de")]
    turned = Turned(muse, german)
    settings = EvaluationSettings("passage")
    check = ExportChecker(muse, corpus, settings)(turned, "onnx", tmp_path)
    assert check.megabytes == 2.5
    assert set(check.languages) == {"en", "de", "hi"}
    assert check.languages["en"].least_cosine == pytest.approx(1, abs=1e-6)
    assert check.passages_least_cosine == pytest.approx(1, abs=1e-6)
    vectors = muse.encode(german).astype(np.float64)
    expected = (vectors * np.roll(vectors, -1, axis=0)).sum(1)
    assert check.languages["de"].least_cosine == pytest.approx(expected.min(), abs=1e-6)
    assert check.languages["de"].mean_cosine == pytest.approx(expected.mean(), abs=1e-6)
    assert check.least_cosine == check.languages["de"].least_cosine
    original, export = evaluate(muse, corpus, settings), evaluate(turned, corpus, settings)
    for code, row in check.languages.items():
        assert row.questions == 20
        assert row.original_hit_rate == original.languages[code].hit_rate_at_1
        assert row.hit_rate == export.languages[code].hit_rate_at_1
    assert check.means["all"] == (original.mean.hit_rate_at_1, export.mean.hit_rate_at_1)
    assert check.means["unsupported"][0] == check.means["unsupported"][1]
    assert check.texts_per_second > 0
    record = json.loads(json.dumps(check.to_json()))
    assert record["languages"]["de"]["hit_rate"] == check.languages["de"].hit_rate
    assert record["means"]["all"]["original"] == original.mean.hit_rate_at_1


def test_tables_say_what_was_found(muse: MuseEncoder, corpus: Corpus, tmp_path: Path) -> None:
    export_encoder(muse, tmp_path / "half", "safetensors-fp16")
    opened = open_export(tmp_path / "half", "safetensors-fp16")
    check = ExportChecker(muse, corpus)(opened, "safetensors-fp16", tmp_path / "half")
    assert check.least_cosine >= 0.9999
    console = Console(width=80, file=io.StringIO())
    with console.capture() as shown:
        console.print(check_table(check))
        console.print(exports_table([check], "muse"))
    text = shown.get()
    assert "safetensors-fp16" in text
    for code in ("en", "de", "hi", "supported", "not supported", "all"):
        assert code in text
    assert size_and_speed(check).startswith(f"{check.megabytes:,.1f} MB; ")
