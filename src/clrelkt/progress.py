"""Progress bars with a rate and the remaining time, on standard error."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["progress_bar", "quiet_transformers", "stage_bar"]


@contextmanager
def progress_bar(
    label: str, *, total: int | None, unit: str, shown: bool = True
) -> Iterator[Callable[[int], None]]:
    """Show a bar while the block runs; call what it yields with the number of units done.

    ``total`` is None where nobody knows how many there will be.
    Nothing is drawn where standard error is not a terminal, or the bar is not to be ``shown``.
    """
    if not shown:
        yield lambda done: None
        return
    with _bar(unit) as bar:
        task = bar.add_task(label, total=total, note="")
        yield lambda done: bar.advance(task, done)


@contextmanager
def stage_bar(label: str, *, shown: bool) -> Iterator[Callable[[int, int, float | None], None]]:
    """Show the progress of a training stage.

    Call what it yields with the steps done, the steps in all, and the best dev score so far.
    """
    if not shown:
        yield lambda done, total, best: None
        return
    with _bar("steps") as bar:
        task = bar.add_task(label, total=None, note="")

        def tick(done: int, total: int, best: float | None) -> None:
            note = "" if best is None else f"dev {best:.3f}"
            bar.update(task, completed=done, total=total, note=note)

        yield tick


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep the advice of Hugging Face's libraries off standard error; bars only on a terminal."""
    import logging as standard

    import transformers

    logging: Any = transformers.utils.logging
    hub = standard.getLogger("huggingface_hub")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    level = hub.level
    logging.set_verbosity_error()
    hub.setLevel(standard.ERROR)
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        hub.setLevel(level)
        if bars:
            logging.enable_progress_bar()


def _bar(unit: str) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.1f} {unit}/s")

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )
