"""Model cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clrelkt.errors import UnknownNameError
from clrelkt.reports.card import GENERATED, model_card
from clrelkt.reports.finish import finish_run
from clrelkt.reports.run_folder import read_finished_run


def front_matter(card: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    head = card.split("---\n")[1]
    values: dict[str, Any] = yaml.safe_load(head)
    return values


def test_every_encoder_of_a_run_has_a_card(reported: Path) -> None:
    results = json.loads((reported / "results.json").read_text("utf-8"))["results"]
    for stage in ("warm-up", "teacher", "student"):
        card = (reported / "encoders" / stage / "README.md").read_text("utf-8")
        head = front_matter(card)
        assert head["language"] == ["en", "de", "ru"] or set(head["language"]) == {"en", "de", "ru"}
        assert head["license"] == "unknown"  # The tiny encoder's base is none that is known.
        rows = head["model-index"][0]["results"]
        shown = {row["dataset"]["name"]: row["metrics"][0]["value"] for row in rows}
        assert shown == {
            f"tiny ({code}, test)": pytest.approx(row["hit_rate@1"], abs=1e-6)
            for code, row in results[stage]["languages"].items()
        }
        for word in ("## Use", "## Results", "## Training", "## Limits", "## Licences"):
            assert word in card


def test_the_hub_reads_the_card(reported: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard.load(reported / "encoders" / "student" / "README.md")
    results = card.data.eval_results
    assert card.data.library_name == "sentence-transformers"
    assert {result.metric_type for result in results} == {"cosine_accuracy@1", "cosine_mrr@10"}


def test_a_card_that_someone_has_changed_is_left_alone(own_run: Path) -> None:
    path = own_run / "encoders" / "student" / "README.md"
    path.write_text("my own words", "utf-8")
    other = own_run / "encoders" / "teacher" / "README.md"
    other.write_text(f"{GENERATED}\nold", "utf-8")
    finish_run(own_run)
    assert path.read_text("utf-8") == "my own words"
    assert "## Limits" in other.read_text("utf-8")


def test_an_encoder_with_its_card_still_loads(reported: Path) -> None:
    from clrelkt import load_encoder

    assert load_encoder(reported / "encoders" / "student").encode(["x"]).shape == (1, 32)


def test_a_run_without_test_questions_says_that_nothing_is_known(own_run: Path) -> None:
    path = own_run / "results.json"
    record = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(record | {"results": {}}), "utf-8")
    card = model_card(read_finished_run(own_run), "student")
    assert "none was looked at" in card
    assert "model-index" not in front_matter(card)
    finish_run(own_run)


def test_names_of_a_corpus_are_no_markup(own_run: Path) -> None:
    path = own_run / "run.json"
    record = json.loads(path.read_text("utf-8"))
    record["corpus"]["name"] = "a|b](http://x) <script>\n# c"
    path.write_text(json.dumps(record), "utf-8")
    card = model_card(read_finished_run(own_run), "student")
    body = card.split("---\n")[2]
    assert "<script>" not in body
    assert "\n# c" not in body
    assert "](http" not in body.replace("\\](http", "")


def test_an_unknown_stage_is_refused(reported: Path) -> None:
    with pytest.raises(UnknownNameError, match="nosuch"):
        model_card(read_finished_run(reported), "nosuch")
