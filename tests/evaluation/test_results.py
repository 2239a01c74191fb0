from __future__ import annotations

import json

import numpy as np
import pytest

from clrelkt.errors import DataError
from clrelkt.evaluation import LanguageResult, Results
from clrelkt.evaluation.results import groups_of


def results() -> Results:
    languages = {
        "en": LanguageResult.from_ranks(np.array([1, 1]), ["a", "b"]),
        "de": LanguageResult.from_ranks(np.array([1, 4]), ["a", "b"]),
        "fi": LanguageResult.from_ranks(np.array([20, 6]), ["a", "b"]),
    }
    return Results.of(
        languages,
        groups_of(languages, frozenset({"de", "en"}), "en"),
        encoder="muse",
        weights="6-bit",
        corpus="toy",
        pool="document",
        document_score="whole",
        split="test",
    )


def test_json_has_exactly_these_keys() -> None:
    record = results().to_json()
    assert list(record) == [
        "encoder",
        "weights",
        "corpus",
        "pool",
        "document_score",
        "split",
        "languages",
        "mean",
        "means",
    ]
    assert record["languages"]["de"] == {
        "questions": 2,
        "hit_rate@1": 0.5,
        "hit_rate@5": 1.0,
        "hit_rate@10": 1.0,
        "mrr@10": 0.625,
    }
    assert record["mean"] == pytest.approx(
        {
            "hit_rate@1": 0.5,
            "hit_rate@5": 2 / 3,
            "hit_rate@10": 2.5 / 3,
            "mrr@10": (1 + 0.625 + 1 / 12) / 3,
        }
    )
    assert record["means"]["supported"]["hit_rate@1"] == 0.5
    assert record["means"]["unsupported"]["hit_rate@10"] == 0.5


def test_json_comes_back() -> None:
    assert Results.from_json(json.loads(json.dumps(results().to_json()))) == results()


@pytest.mark.parametrize("spoil", [{"languages": None}, {"mean": {}}, {"means": {"x": 3}}])
def test_what_is_no_result_is_an_error(spoil: dict[str, object]) -> None:
    with pytest.raises(DataError, match="not a result"):
        Results.from_json({**results().to_json(), **spoil})


def test_groups_leave_out_the_documents_language_and_empty_groups() -> None:
    assert groups_of(["en", "de", "fi"], frozenset({"en", "de"}), "en") == {
        "supported": ("de",),
        "unsupported": ("fi",),
    }
    assert groups_of(["en", "de"], frozenset({"de"}), "en") == {"supported": ("de",)}
    assert groups_of(["en", "de"], frozenset(), "en") == {}
