"""Figures as files, and the projection behind the map."""

from __future__ import annotations

import struct
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from clrelkt.errors import MissingExtraError
from clrelkt.evaluation.separation import BINS, Separation
from clrelkt.reports.figures.drawing import Axis
from clrelkt.reports.finish import write_run_figures
from clrelkt.reports.markup import Markup, data_block, plain_number, tag
from clrelkt.reports.projection import project

NAMES = ("map", "hit-rates", "training", "similarities", "language-bias")


def test_every_figure_is_written_as_svg_and_png(reported: Path, tmp_path: Path) -> None:
    files = write_run_figures(reported, tmp_path / "figures")
    assert [path.name for path in files] == [
        f"{n}.{kind}" for n in NAMES for kind in ("svg", "png")
    ]
    for svg, png in zip(files[::2], files[1::2], strict=True):
        root = ET.fromstring(svg.read_text("utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in svg.read_text("utf-8")
        content = png.read_bytes()
        assert content.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", content[16:24])
        assert (width, height) == pytest.approx(
            (2 * float(root.attrib["width"]), 2 * float(root.attrib["height"])), abs=2
        )
        assert len(content) > 5_000


def test_without_the_library_the_install_line_is_named(
    reported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'clrelkt\[report\]'"):
        write_run_figures(reported, tmp_path)


def clouds(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Questions and passages on four subjects, which a second encoder tells apart better."""
    rng = np.random.default_rng(seed)
    subjects = rng.normal(size=(4, 32))
    labels = np.arange(80) % 4
    kinds = np.arange(80) >= 60
    offset = np.where(kinds[:, None], 3.0, 0.0) * rng.normal(size=32)
    rows = {
        name: subjects[labels] + offset + noise * rng.normal(size=(80, 32))
        for name, noise in (("before", 4.0), ("after", 0.3))
    }
    unit = {name: own / np.linalg.norm(own, axis=1, keepdims=True) for name, own in rows.items()}
    return {name: own.astype(np.float16) for name, own in unit.items()}, kinds


def test_what_is_alike_lies_together_whatever_its_kind() -> None:
    vectors, kinds = clouds(0)
    projection = project(vectors, kinds)
    labels = np.arange(80) % 4
    near = {}
    for name, points in projection.points.items():
        assert points.min() >= 0
        assert points.max() <= 1
        questions, passages = points[~kinds], points[kinds]
        distances = np.linalg.norm(questions[:, None] - passages, axis=2)
        near[name] = np.mean(labels[kinds][distances.argmin(1)] == labels[~kinds])
    assert near["after"] > 0.95 > 0.8 > near["before"]


def test_the_projection_is_the_same_each_time() -> None:
    vectors, kinds = clouds(1)
    first, second = project(vectors, kinds), project(vectors, kinds)
    assert first.method == "t-SNE"
    for name in vectors:
        assert first.points[name].tobytes() == second.points[name].tobytes()


def test_without_scikit_learn_the_principal_components_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    vectors, kinds = clouds(2)
    projection = project(vectors, kinds)
    assert projection.method == "PCA"
    assert all(np.isfinite(points).all() for points in projection.points.values())


def test_few_texts_and_equal_texts_have_places_too() -> None:
    one = np.ones((1, 8), np.float16)
    assert project({"a": one, "b": one}, np.array([True])).points["a"].shape == (1, 2)
    same = np.ones((40, 8), np.float16)
    assert np.isfinite(project({"a": same}, np.arange(40) > 3).points["a"]).all()


def test_separation_counts_how_often_gold_is_above() -> None:
    def counts(**places: int) -> tuple[int, ...]:
        row = [0] * BINS
        for place, count in places.items():
            row[int(place[1:])] = count
        return tuple(row)

    # Gold in bins 150 and 100, others: two in 50, one in 150.
    # Of the six pairs: 150 beats 50 twice and ties once, 100 beats 50 twice and loses once.
    separation = Separation(counts(b150=1, b100=1), counts(b50=2, b150=1))
    assert separation.share == pytest.approx((2 + 0.5 + 2) / 6)
    assert Separation.from_json(separation.to_json()) == separation
    assert np.isnan(Separation(counts(b1=1), counts()).share)


def test_markup_escapes_what_is_not_markup() -> None:
    assert tag("b", "<i>", tag("i", "&"), title='"x"') == (
        '<b title="&quot;x&quot;">&lt;i&gt;<i>&amp;</i></b>'
    )
    assert tag("p", Markup("<br>"), hidden=True, id=None, class_="a", data_i=3.0) == (
        '<p hidden class="a" data-i="3"><br></p>'
    )
    assert "</script>" not in data_block("x", ["</script>"])[:-9]


@pytest.mark.parametrize(
    ("value", "written"), [(1.0, "1"), (-0.001, "0"), (2.346, "2.35"), (1e-9, "0"), (1200, "1200")]
)
def test_coordinates_are_short(value: float, written: str) -> None:
    assert plain_number(value) == written


def test_a_coordinate_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no coordinate"):
        plain_number(float("nan"))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0.02, 0.9, [0.2, 0.4, 0.6, 0.8]), (3, 3, [3])],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert Axis(low, high, 0, 100).ticks() == pytest.approx(ticks)
