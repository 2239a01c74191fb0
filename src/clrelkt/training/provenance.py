"""Where what a run starts from came from: its encoder, and questions that a model translated."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from clrelkt.corpora import Corpus
from clrelkt.encoders import PUBLISHED
from clrelkt.encoders.description import DESCRIPTION_FILE
from clrelkt.encoders.installed import installed_folder, known_as
from clrelkt.errors import EncoderError
from clrelkt.training.languages import RECORD_FILE

__all__ = ["count_translated", "describe_encoder"]


def describe_encoder(name: str) -> dict[str, Any] | None:
    """Return what the folder of an encoder says of it, by file name; None where it has none.

    An encoder that an installed package brings has one.

    That is its description, ``clrelkt.json``, and how languages were added to it,
    ``languages.json``, where they were.

    Raises:
        EncoderError: a file cannot be read.
    """
    name = known_as(name)
    folder = Path(name)
    if name not in PUBLISHED and not folder.is_dir():
        folder = installed_folder(name) or folder
    if name in PUBLISHED or not folder.is_dir():
        return None
    files = [folder / DESCRIPTION_FILE]
    files += [path for path in (folder / RECORD_FILE,) if path.exists()]
    return {path.name: _read(path) for path in files}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"{path} cannot be read ({error}); save the encoder anew, or name another one"
        ) from error


def count_translated(corpus: Corpus) -> dict[str, int]:
    """Return how many questions each model has translated, by its name."""
    models = Counter(
        question.translated_by
        for question in corpus.questions
        if question.translated_by is not None
    )
    return dict(sorted(models.items()))
