"""The page of a run: what it says, what it holds, what it withstands."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from clrelkt.errors import TrainingError
from clrelkt.reports.finish import write_report
from clrelkt.reports.page import MAX_BYTES
from clrelkt.reports.tables import figure

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"'&\u2028"


class Page(HTMLParser):
    """The elements of a page, the texts in them, and the rows of its tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if {"td", "th"} & set(self.open) and self.open[-1] not in ("small", "b"):
            self.rows[-1][-1] += data


def results_of(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text("utf-8"))["results"]
    return results


def test_the_table_shows_the_hit_rates_of_results_json(reported: Path) -> None:
    page = Page((reported / "report.html").read_text("utf-8"))
    results = results_of(reported)
    head = page.rows[0]
    assert set(head[1:]) == set(results)
    assert len(results) == 5
    codes = {"English ": "en", "German ": "de", "Russian ": "ru"}
    table = page.rows[1:6]
    assert [row[0] for row in table] == [*codes, "supported", "all"]
    for name, *cells in table:
        for stage, shown in zip(head[1:], cells, strict=True):
            result = results[stage]
            rows = {"all": result["mean"], **result["means"]}
            rows |= {name: result["languages"][code] for name, code in codes.items()}
            assert shown == figure(rows[name]["hit_rate@1"])


def test_each_picture_has_its_number(reported: Path) -> None:
    page = Page((reported / "report.html").read_text("utf-8"))
    results = results_of(reported)
    for stage in ("zero-shot", "student"):
        assert f"{results[stage]['mean']['hit_rate@1']:.1%}" in page.texts
    maps = [
        attrs for tag, attrs in page.elements if tag == "svg" and "map" in str(attrs.get("class"))
    ]
    assert len(maps) == 2


def test_marks_are_filled_where_the_gold_comes_first(reported: Path) -> None:
    page = Page((reported / "report.html").read_text("utf-8"))
    portrait = json.loads((reported / "portrait.json").read_text("utf-8"))
    marks = [a for tag, a in page.elements if tag == "use" and "data-i" in a]
    questions = [text for text in portrait["texts"] if text["ranks"]]
    assert len(marks) == 2 * len(questions) > 0
    found = sum(rank == 1 for text in questions for rank in text["ranks"].values())
    assert sum("hollow" not in str(mark["class"]).split() for mark in marks) == found


def test_the_page_is_made_again_to_the_same_bytes(own_run: Path) -> None:
    first = (own_run / "report.html").read_bytes()
    assert write_report(own_run).read_bytes() == first
    assert 20_000 < len(first) < MAX_BYTES


def test_the_page_asks_for_nothing(reported: Path) -> None:
    html = (reported / "report.html").read_text("utf-8")
    page = Page(html)
    for tag, attrs in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        for key in ("src", "href", "srcset", "action", "data"):
            value = attrs.get(key)
            assert value is None or value.startswith("#"), (tag, key, value)
    assert not re.search(r"url\(|@import", html)


def test_hostile_texts_stay_texts(own_run: Path) -> None:
    """Titles, questions, passages, answers and ids from a corpus cannot become markup."""
    for name in ("portrait.json", "results.json", "run.json"):
        path = own_run / name
        record = json.loads(path.read_text("utf-8"))
        if name == "portrait.json":
            for text in record["texts"]:
                text["text"], text["title"] = HOSTILE, HOSTILE
            for worst in record["worst"]:
                worst |= {"question": HOSTILE, "hit_text": HOSTILE, "hit_id": HOSTILE}
                worst |= {"answers": [HOSTILE], "gold_text": HOSTILE}
        if name == "run.json":
            record["corpus"]["name"] = HOSTILE
            record["environment"]["hardware"] = HOSTILE
        path.write_text(json.dumps(record), "utf-8")
    html = write_report(own_run).read_text("utf-8")
    page = Page(html)
    assert [attrs for tag, attrs in page.elements if tag == "script"] == [
        {"type": "application/json", "id": "map-data"},
        {},
    ]
    assert not any("onerror" in attrs for _, attrs in page.elements)
    assert html.count("</script>") == 2
    assert any(HOSTILE in text for text in page.texts)
    block = re.search(r'id="map-data">(.*?)</script>', html)
    assert block is not None
    assert json.loads(block.group(1))["points"][0]["t"] == HOSTILE


def test_a_run_of_an_older_version_has_a_report_without_pictures(own_run: Path) -> None:
    (own_run / "portrait.json").unlink()
    page = Page(write_report(own_run).read_text("utf-8"))
    assert "Results" in page.texts
    assert not any("map" in str(a.get("class")) for tag, a in page.elements if tag == "svg")


@pytest.mark.parametrize("name", ["portrait.json", "results.json", "run.json", "log.jsonl"])
def test_a_file_that_is_cut_short_is_named(own_run: Path, name: str) -> None:
    path = own_run / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    was = (own_run / "report.html").read_bytes()
    with pytest.raises(TrainingError, match=re.escape(name)):
        write_report(own_run)
    assert (own_run / "report.html").read_bytes() == was


def test_a_run_that_is_not_complete_has_no_report(own_run: Path) -> None:
    (own_run / "results.json").unlink()
    with pytest.raises(TrainingError, match="not complete"):
        write_report(own_run)


def test_further_measurements_fold_single_languages_away(own_run: Path) -> None:
    path = own_run / "results.json"
    record = json.loads(path.read_text("utf-8"))
    numbers = {"map": 0.25, "map/de": 0.75}
    record["measured"] = {"LAReQA": {"zero-shot": numbers, "student": numbers}}
    path.write_text(json.dumps(record), "utf-8")
    html = write_report(own_run).read_text("utf-8")
    shown = html[html.index("LAReQA") :]
    plain, _, folded = shown.partition("language by language")
    assert ".250" in plain
    assert ".750" not in plain
    assert ".750" in folded


def test_the_papers_figures_stand_beside_ours_where_the_test_is_the_same(own_run: Path) -> None:
    def rename(pool: str) -> None:
        for name in ("results.json", "run.json"):
            path = own_run / name
            record = json.loads(path.read_text("utf-8"))
            if name == "run.json":
                record["corpus"]["name"] = "xquad"
            for result in record.get("results", {}).values():
                result |= {"corpus": "xquad", "pool": pool, "document_score": "whole"}
            path.write_text(json.dumps(record), "utf-8")

    rename("document")
    page = Page(write_report(own_run).read_text("utf-8"))
    assert page.rows[0][-1] == "CL-ReLKT (paper)"
    assert next(row for row in page.rows if row[0] == "German ")[-1] == ".832"
    assert next(row for row in page.rows if row[0] == "English ")[-1] == "–"  # noqa: RUF001
    assert next(row for row in page.rows if row[0] == "all")[-1] == "–"  # noqa: RUF001
    rename("passage")
    page = Page(write_report(own_run).read_text("utf-8"))
    assert page.rows[0][-1] == "student"
