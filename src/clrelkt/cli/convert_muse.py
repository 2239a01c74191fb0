"""``clrelkt convert-muse``: Google's original mUSE as an encoder of clrelkt."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["convert_muse"]


@click.command("convert-muse")
@click.argument("saved_model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the encoder.",
)
@click.option(
    "--sentencepiece",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Its SentencePiece model. [default: the one in SAVED_MODEL]",
)
def convert_muse(saved_model: Path, output: Path, sentencepiece: Path | None) -> None:
    """Turn Google's SAVED_MODEL into an encoder folder.

    SAVED_MODEL is the unpacked folder of universal-sentence-encoder-multilingual version 3, or the
    prefix of a checkpoint of it. Needs the extra: pip install 'clrelkt[tensorflow]'. The encoder
    is saved whole, in full precision; train from it with --encoder and --save-form whole.
    """
    from clrelkt.encoders.description import check_folder
    from clrelkt.encoders.muse.encoder import MuseEncoder
    from clrelkt.encoders.muse.saved_model import MUSE_BASE, read_saved_model

    check_folder(output)
    weights = read_saved_model(saved_model, sentencepiece=sentencepiece)
    MuseEncoder.from_weights(weights, MUSE_BASE).save(output)
    click.echo(str(output))
