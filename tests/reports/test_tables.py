from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table

from clrelkt.evaluation import LanguageResult, Results, aggregate, compare, printed_results
from clrelkt.evaluation.results import groups_of
from clrelkt.evaluation.seeds import SeedSummary
from clrelkt.reports import comparison_table, results_table, stage_tables, stages_json

SUPPORTED = ["ar", "de", "es", "ru", "th", "tr", "zh"]


def results(codes: list[str], name: str = "muse", seed: int = 0) -> Results:
    rng = np.random.default_rng(seed)
    ids = [str(number) for number in range(50)]
    languages = {code: LanguageResult.from_ranks(rng.integers(1, 14, 50), ids) for code in codes}
    return Results.of(
        languages,
        groups_of(codes, frozenset(SUPPORTED), "en"),
        encoder=name,
        weights="6-bit",
        corpus="xquad",
        pool="document",
        document_score="whole",
        split="test",
    )


def shown(*tables: Table) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    for table in tables:
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in text
    return [line.rstrip() for line in text.splitlines()]


XQUAD = ["en", *SUPPORTED, "ro", "el", "hi", "vi"]


def stages(codes: list[str], names: list[str]) -> dict[str, SeedSummary]:
    return {
        name: aggregate([results(codes, name, seed=10 * place + seed) for seed in range(3)])
        for place, name in enumerate(names)
    }


def test_one_result_has_a_row_a_language_and_the_means() -> None:
    measured = results(["en", "de", "fi"])
    lines = shown(results_table(measured))
    assert max(map(len, lines)) <= 80
    cells = {line.split()[0]: line.split() for line in lines if line.strip()}
    row = measured.languages["de"]
    expected = [
        f"{value:.3f}".removeprefix("0")
        for value in (row.hit_rate_at_1, row.hit_rate_at_5, row.hit_rate_at_10, row.mrr_at_10)
    ]
    assert cells["de"] == ["de", "50", *expected]
    assert {"supported", "not", "all"} <= set(cells)


def test_a_whole_one_is_as_wide_as_the_others() -> None:
    languages = {"de": LanguageResult.from_ranks(np.array([1]), ["a"])}
    perfect = Results.of(
        languages,
        {},
        encoder="muse",
        weights="",
        corpus="toy",
        pool="passage",
        document_score="whole",
        split="all",
    )
    assert "1.00" in "\n".join(shown(results_table(perfect)))


def test_stages_are_rows_where_that_fits() -> None:
    [table] = stage_tables(stages(["de", "ru"], ["zero-shot", "student"]))
    assert [str(column.header) for column in table.columns] == [
        "",
        "de",
        "ru",
        "supported",
        "all",
    ]
    assert table.row_count == 2


def test_six_stages_of_xquad_fit_into_80_columns() -> None:
    names = ["bm25", "zero-shot", "warm-up", "teacher", "student"]
    compared = stages(XQUAD, names)
    paper = printed_results("xquad")
    assert paper is not None
    compared["paper"] = aggregate([paper])
    [table] = stage_tables(compared)
    lines = shown(table)
    assert max(map(len, lines)) <= 80
    assert [str(column.header) for column in table.columns] == ["language", *names, "paper"]
    thai = next(line.split() for line in lines if line.startswith("th "))
    assert thai[-1] == ".857"
    estimate = compared["student"].languages["th"]["hit_rate@1"]
    assert estimate.half_width is not None
    assert thai[-2] == f"{estimate.mean:.3f}±{estimate.half_width:.3f}".replace("0.", ".")
    english = next(line.split() for line in lines if line.startswith("en "))
    assert english[-1] == "–"  # noqa: RUF001


def test_too_many_stages_are_broken_by_languages() -> None:
    compared = stages(XQUAD, [f"stage {number}" for number in range(12)])
    tables = stage_tables(compared, "mrr@10")
    assert len(tables) > 1
    assert max(map(len, shown(*tables))) <= 80
    headers = [str(column.header) for table in tables for column in table.columns[1:]]
    assert headers == [*compared["stage 0"].languages, "supported", "not supported", "all"]


def test_the_same_as_json() -> None:
    compared = stages(["de"], ["zero-shot"])
    record = json.loads(json.dumps(stages_json(compared)))
    estimate = compared["zero-shot"].languages["de"]["mrr@10"]
    assert record["zero-shot"]["languages"]["de"]["mrr@10"] == {
        "mean": estimate.mean,
        "low": estimate.low,
        "high": estimate.high,
        "seeds": 3,
    }
    assert set(record["zero-shot"]["means"]) == {"supported"}


def test_intervals_over_questions_stand_beside_the_figures() -> None:
    measured = results(XQUAD)
    summary = aggregate([measured])
    lines = shown(results_table(measured, summary))
    assert max(map(len, lines)) <= 80
    thai = next(line.split() for line in lines if line.startswith("th "))
    estimate = summary.languages["th"]["mrr@10"]
    assert estimate.half_width is not None
    assert thai[-1] == f"{estimate.mean:.3f}±{estimate.half_width:.3f}".replace("0.", ".")


def test_two_encoders_side_by_side() -> None:
    first, second = results(XQUAD, "muse", 0), results(XQUAD, "student", 1)
    clear = LanguageResult.from_ranks(np.ones(50, int), [str(n) for n in range(50)])
    first = replace(first, languages={**first.languages, "de": clear})
    lines = shown(comparison_table(compare(first, second)))
    assert max(map(len, lines)) <= 80
    assert lines[0] == "hit_rate@1: muse less student"
    german = next(line.split() for line in lines if line.startswith("de "))
    other = second.languages["de"].hit_rate_at_1
    assert german[1:4] == ["1.00", f"{other:.3f}"[1:], f"+{1 - other:.3f}".replace("0.", ".")]
    assert german[-1] == "*"
    thai = next(line.split() for line in lines if line.startswith("th "))
    assert thai[-1] != "*"
    assert {"supported", "all"} <= {line.split()[0] for line in lines if line.strip()}
