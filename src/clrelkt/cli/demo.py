"""``clrelkt demo``: the whole method in a few minutes."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["demo"]


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/demo"),
    show_default=True,
    help="Folder of the runs.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--device", metavar="NAME", help="cpu or cuda. [default: cuda where there is one]")
@click.option("--json", "as_json", is_flag=True, help="Print the record as one JSON object.")
def demo(output: Path, seeds: int, device: str | None, as_json: bool) -> None:
    """Run the whole method on the bundled corpus: zero-shot, warm-up, teacher, student, a table.

    24 English documents, 144 questions in English and eight other languages, mUSE's own weights;
    nothing is downloaded.
    """
    from clrelkt.cli.reproduce import run_reproduction
    from clrelkt.training import RunSettings, load_recipe

    if not as_json:
        click.echo(
            "Questions in eight languages, answers in 24 English documents. Each stage trains "
            "mUSE a step\nfurther; the table shows how often the right passage of 72 comes first "
            "for questions kept\naside.\n"
        )
    settings = RunSettings(output=output, device=device)
    command = f"clrelkt demo --seeds {seeds}"
    run_reproduction(load_recipe("demo"), settings, seeds, 1, command, None, as_json)
