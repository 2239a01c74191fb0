"""The map of the embedding space: questions in every language and what they are to find.

One projection for all encoders, so that the pictures compare. A question's colour is its
document's, its shape its language, and it is filled where its gold comes first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clrelkt.reports.figures.drawing import SHAPES, Figure, Panel, label
from clrelkt.reports.markup import Markup, joined, tag
from clrelkt.reports.projection import Projection, project
from clrelkt.training.portrait import PicturedText, Portrait

__all__ = [
    "document_letter",
    "map_data",
    "plain_title",
    "project_portrait",
    "space_figure",
    "space_legend",
]

_SIDE, _HEAD, _INNER = 500.0, 58.0, 18.0
_TITLE = 34


def document_letter(place: int) -> str:
    """Return the letter of a coloured document."""
    return chr(ord("A") + place)


def project_portrait(portrait: Portrait) -> Projection:
    """Return where the texts of a portrait lie, in all its encoders."""
    return project(portrait.vectors, np.array([text.is_question for text in portrait.texts]))


def plain_title(title: str) -> str:
    """Return a title as people write it; SQuAD's have underscores for spaces."""
    return title.replace("_", " ")


def space_figure(portrait: Portrait, projection: Projection) -> Figure:
    """Return a panel an encoder."""
    panels = [
        _panel(portrait, name, projection.points[name], before=number == 0)
        for number, name in enumerate(portrait.encoders)
    ]
    return Figure(
        "map",
        "Map of the embedding space before and after training",
        tuple(panels),
        columns=2 if len(panels) != 3 else 3,
        narrowest=330,
        widest=640,
        legend=space_legend(portrait),
    )


def map_data(portrait: Portrait, languages: Mapping[str, str]) -> dict[str, Any]:
    """Return what the page's script shows of each point: the texts, once for all pictures.

    ``languages`` are names of languages by code.
    """
    ids = _document_numbers(portrait)
    titles: dict[int, str] = {}
    points = []
    for text in portrait.texts:
        number = ids[text.document_id]
        titles[number] = plain_title(text.title)
        row: dict[str, Any] = {"d": number, "l": text.language, "t": text.text}
        if text.ranks is not None:
            row["r"] = [text.ranks[name] for name in portrait.encoders]
            row["p"] = text.parallel_id
        points.append(row)
    return {
        "encoders": list(portrait.encoders),
        "pool": portrait.pool,
        "own": next((t.language for t in portrait.texts if not t.is_question), ""),
        "titles": [titles[number] for number in range(len(titles))],
        "languages": dict(languages),
        "points": points,
    }


def _document_numbers(portrait: Portrait) -> dict[str, int]:
    """Number the documents, those with a colour first."""
    shown = {text.document_id for text in portrait.texts}
    ids = [id_ for id_ in portrait.documents if id_ in shown]
    ids += sorted(shown - set(portrait.documents))
    return {id_: number for number, id_ in enumerate(ids)}


def _panel(portrait: Portrait, name: str, points: np.ndarray, *, before: bool) -> Panel:
    places = _INNER + points * (_SIDE - 2 * _INNER) + np.array([0, _HEAD])
    ids = _document_numbers(portrait)
    shape = {code: place % len(SHAPES) for place, code in enumerate(portrait.own)}
    grey: list[Markup] = []
    coloured: list[Markup] = []
    tiles: list[Markup] = []
    for number, (text, place) in enumerate(zip(portrait.texts, places, strict=True)):
        document = ids[text.document_id]
        plain = document >= len(portrait.documents)
        if not text.is_question:
            (grey if plain else tiles).append(_tile(number, document, place, plain=plain))
            continue
        mark = _question(number, document, text, name, place, shape[text.language], plain=plain)
        (grey if plain else coloured).append(mark)
    share, head = portrait.share[name], "before training" if before else f"after: {name}"
    thing = portrait.pool
    parts = [
        label(4, 22, head, "title large"),
        label(4, 43, f"questions whose nearest {thing} is their own", "muted sub"),
        label(_SIDE - 4, 40, f"{share:.1%}", "number end"),
        tag("rect", x=0.5, y=_HEAD, width=_SIDE - 1, height=_SIDE - 1, rx=6, class_="frame back"),
        tag("g", *grey, *coloured, *tiles, class_="points"),
    ]
    title = (
        f"{head}: {share:.1%} of questions have their own {thing} nearest (mean over languages, "
        f"{portrait.questions:,} questions in {len(portrait.own)} languages)"
    )
    return Panel(_SIDE, _SIDE + _HEAD + 1, title, joined(parts), "map")


def _question(
    number: int,
    document: int,
    text: PicturedText,
    encoder: str,
    place: np.ndarray,
    shape: int,
    *,
    plain: bool,
) -> Markup:
    found = text.ranks is not None and text.ranks[encoder] == 1
    colour = "cf" if plain else f"c{document}"
    return tag(
        "use",
        href=f"#s{shape}",
        x=place[0],
        y=place[1],
        class_=f"question {colour}" + ("" if found else " hollow"),
        data_i=str(number),
    )


def _tile(number: int, document: int, place: np.ndarray, *, plain: bool) -> Markup:
    x, y = float(place[0]), float(place[1])
    if plain:
        return tag(
            "rect", x=x - 4, y=y - 4, width=8, height=8, class_="tile cm spot", data_i=str(number)
        )
    tile = tag("rect", x=x - 8, y=y - 8, width=16, height=16, rx=3.5, class_=f"tile c{document}")
    letter = label(x, y + 3.6, document_letter(document), f"letter on{document}")
    return tag("g", tile, letter, data_i=str(number))


def space_legend(portrait: Portrait) -> Panel:
    """Return what letters and shapes stand for."""
    titles = {text.document_id: text.title for text in portrait.texts}
    parts: list[Markup] = []
    width = 2 * _SIDE
    y = 14.0
    cells: list[tuple[Markup, str]] = []
    for number, id_ in enumerate(portrait.documents):
        title = plain_title(titles.get(id_, id_))
        shown = title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}…"
        cells.append((_tile(-1, number, np.array([0.0, 0.0]), plain=False), shown))
    y = _flow(cells, parts, width, y)
    marks = [
        (tag("use", href=f"#s{place % len(SHAPES)}", class_="question cm"), code)
        for place, code in enumerate(portrait.own)
    ]
    y = _flow(marks, parts, width, y + 24)
    kinds = [
        (tag("use", href="#s0", class_="question cm"), "filled: its gold comes first"),
        (tag("use", href="#s0", class_="question cm hollow"), "hollow: something else does"),
        (
            tag("rect", x=-4, y=-4, width=8, height=8, class_="tile cm spot"),
            "other " + _plural(portrait.pool),
        ),
    ]
    y = _flow(kinds, parts, width, y + 24)
    return Panel(width, y + 12, "Letters stand for documents, shapes for languages", joined(parts))


def _plural(pool: str) -> str:
    return f"{pool}s"


def _flow(
    cells: Sequence[tuple[Markup, str]], parts: list[Markup], width: float, y: float
) -> float:
    x = 10.0
    for mark, text in cells:
        needed = 34 + 6.4 * len(text)
        if x + needed > width and x > 10:
            x, y = 10.0, y + 22
        moved = f"translate({math.floor(x)} {math.floor(y)})"
        parts.append(tag("g", mark, label(14, 4, text), transform=moved))
        x += needed
    return y
