"""The colour and the mark of each stage, the same in every figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clrelkt.reports.figures.drawing import SHAPES
from clrelkt.reports.markup import Markup, tag
from clrelkt.training.recipe import BASELINE, ZERO_SHOT

__all__ = ["StageMark", "stage_marks"]

_CYCLE = (
    ("c5", 2, False),
    ("c0", 1, False),
    ("c1", 0, False),
    ("c2", 3, False),
    ("c6", 4, False),
    ("c3", 5, False),
    ("c4", 6, False),
    ("c7", 7, False),
)


@dataclass(frozen=True, slots=True)
class StageMark:
    """How a stage is drawn: a class of colour, a number of ``SHAPES``, filled or hollow."""

    colour: str
    shape: int
    hollow: bool

    def at(self, x: float, y: float) -> Markup:
        """Return the mark at a place."""
        class_ = f"{self.colour} hollow" if self.hollow else self.colour
        return tag("use", href=f"#s{self.shape}", x=x, y=y, class_=f"question {class_}")


def stage_marks(stages: Sequence[str], paper: str | None = None) -> dict[str, StageMark]:
    """Return a mark for each stage, and for the printed figures; the last stages stand out.

    The colours are dealt from the end, so that a single stage looks like a last one.
    """
    marks = {
        BASELINE: StageMark("cm", 8, True),
        ZERO_SHOT: StageMark("cm", 0, True),
    }
    if paper is not None:
        marks[paper] = StageMark("ci", 3, True)
    trained = [stage for stage in stages if stage not in marks]
    cycle = _CYCLE if len(trained) > 3 else (_CYCLE[3:] + _CYCLE[:3])[-len(trained) :]
    for number, stage in enumerate(trained):
        colour, shape, hollow = cycle[number % len(cycle)]
        marks[stage] = StageMark(colour, shape % len(SHAPES), hollow)
    return {stage: mark for stage, mark in marks.items() if stage in stages or stage == paper}
