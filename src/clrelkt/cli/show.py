"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from clrelkt.evaluation import MetricName, SeedSummary
    from clrelkt.training import Recipe

__all__ = ["show_gains", "show_stages"]


def show_stages(stages: Mapping[str, SeedSummary]) -> None:
    """Print the stages side by side: hit rate@1 and MRR@10, with intervals."""
    from rich.console import Console

    from clrelkt.reports import stage_tables

    console = Console()
    metrics: tuple[MetricName, ...] = ("hit_rate@1", "mrr@10")
    for metric in metrics:
        for table in stage_tables(stages, metric, width=min(console.width, 100)):
            console.print(table)
            console.print()


def show_gains(stages: Mapping[str, SeedSummary], recipe: Recipe, groups: Sequence[str]) -> None:
    """Print what each stage gained or lost in hit rate@1 over the one it started from."""
    for stage in recipe.stages:
        start = stage.start or "zero-shot"
        parts = []
        for group in groups:
            after = stages[stage.name].means[group]["hit_rate@1"].mean
            before = stages[start].means[group]["hit_rate@1"].mean
            parts.append(f"{group} {after - before:+.3f}")
        click.echo(f"{stage.name} over {start}: {', '.join(parts)}")
