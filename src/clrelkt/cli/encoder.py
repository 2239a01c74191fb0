"""``clrelkt encoder``: bring in an encoder from elsewhere, and show what one is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

__all__ = ["encoder"]


@click.group()
def encoder() -> None:
    """Bring in an encoder from elsewhere, and show what one is."""


@encoder.command("import")
@click.argument("model")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the encoder.",
)
@click.option(
    "--pooling",
    "modes",
    multiple=True,
    type=click.Choice(["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]),
    help="How tokens become one vector; several are joined. [default: as MODEL says, else mean]",
)
@click.option("--question-prompt", metavar="TEXT", help="Before every question, as in 'query: '.")
@click.option("--passage-prompt", metavar="TEXT", help="Before every passage.")
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    help="Tokens that are read at once; longer texts are read as several passages.",
)
@click.option("--languages", metavar="CODES", help="Languages it was trained on, as in de,en,fr.")
@click.option(
    "--dimension",
    type=click.IntRange(min=1),
    help="Add a layer that makes vectors of so many numbers. It is to be trained.",
)
@click.option("--revision", metavar="NAME", help="Version of a model on the hub.")
def import_(
    model: str, output: Path, modes: tuple[str, ...], languages: str | None, **given: Any
) -> None:
    """Make an encoder of MODEL: a folder, or a name on the model hub.

    MODEL is one of Hugging Face's transformers (BERT, XLM-R, ModernBERT, MPNet, ...) or of
    sentence-transformers. What it does not say of itself is given here, and kept in the folder,
    which every command takes as ENCODER and SentenceTransformer opens too.
    """
    from clrelkt.encoders import TransformerOptions, load_encoder
    from clrelkt.encoders.description import check_folder

    codes = None if languages is None else tuple(languages.replace(",", " ").split())
    options = TransformerOptions(pooling=modes or None, languages=codes, **given)
    check_folder(output)
    load_encoder(model, options).save(output)
    click.echo(str(output))


@encoder.command()
@click.argument("name", metavar="ENCODER")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(name: str, as_json: bool) -> None:
    """Show what ENCODER is: its kind, sizes, pooling, prompts and languages."""
    from rich.console import Console
    from rich.table import Table

    from clrelkt.encoders import load_encoder

    found = _described(load_encoder(name))
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=1))
        return
    table = Table(show_header=False, box=None)
    for key, value in found.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        table.add_row(key.replace("_", " "), shown)
    Console().print(table)


def _described(loaded: Any) -> dict[str, Any]:
    from clrelkt.encoders.transformer.encoder import TransformerEncoder

    found = {
        "name": loaded.name,
        "kind": "mUSE",
        "weights": loaded.weights,
        "dimension": loaded.dimension,
        "parameters": sum(parameter.numel() for _, parameter in loaded.named_parameters()),
        "vocabulary": loaded.tokenizer.pieces,
        "languages": sorted(loaded.languages),
        "padding": "none",
    }
    if isinstance(loaded, TransformerEncoder):
        network = loaded.network
        found |= {
            "kind": network.model.config.model_type,
            "padding": "none" if network.unpadded else "texts of about the same length",
            "pooling": list(network.pooling),
            "question_prompt": loaded.prompts.question,
            "passage_prompt": loaded.prompts.passage,
            "max_length": loaded.tokenizer.max_length,
        }
    return found
