"""XQuAD: 1,190 questions in 12 languages over 48 English articles (and XQuAD-R, its twin)."""

from __future__ import annotations

from pathlib import Path

from clrelkt.corpora.model import Corpus
from clrelkt.corpora.parallel import read_parallel

__all__ = ["read_xquad"]


def read_xquad(folder: Path, *, name: str = "xquad") -> Corpus:
    """Read ``xquad.XX.json`` (or XQuAD-R's ``XX.json``); every file must have every question.

    The documents and the answers are those of the English file.

    Raises:
        DataError: the folder has no JSON file, or none in English.
        CorpusError: a file has faults, or a question without its English twin.
    """
    return read_parallel(folder, name=name, complete=True)
