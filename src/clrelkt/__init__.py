"""Cross-lingual retrieval by language knowledge transfer.

A question is asked in one language, the answer stands in another. clrelkt trains a multilingual
sentence encoder to find it, in three stages (warm-up, teacher, transfer), and measures how well it
does.

    corpus = clrelkt.load_corpus("xquad")
    run = clrelkt.train(clrelkt.load_recipe("xquad"), clrelkt.RunSettings("runs/xquad"), corpus)
    results = clrelkt.evaluate(run.encoder, clrelkt.take_split(corpus, "test"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clrelkt.corpora import load_corpus, split_corpus, take_split
    from clrelkt.encoders import load_encoder
    from clrelkt.encoders.sentence_transformers import to_sentence_transformer
    from clrelkt.evaluation import evaluate
    from clrelkt.reports.finish import write_report
    from clrelkt.search import Hit, Index, IndexDocument, IndexSettings
    from clrelkt.training import RunSettings, load_recipe, train

__all__ = [
    "Hit",
    "Index",
    "IndexDocument",
    "IndexSettings",
    "RunSettings",
    "evaluate",
    "load_corpus",
    "load_encoder",
    "load_recipe",
    "split_corpus",
    "take_split",
    "to_sentence_transformer",
    "train",
    "write_report",
]

_ROOMS = {
    "Hit": "clrelkt.search",
    "Index": "clrelkt.search",
    "IndexDocument": "clrelkt.search",
    "IndexSettings": "clrelkt.search",
    "RunSettings": "clrelkt.training",
    "evaluate": "clrelkt.evaluation",
    "load_corpus": "clrelkt.corpora",
    "load_encoder": "clrelkt.encoders",
    "load_recipe": "clrelkt.training",
    "split_corpus": "clrelkt.corpora",
    "take_split": "clrelkt.corpora",
    "to_sentence_transformer": "clrelkt.encoders.sentence_transformers",
    "train": "clrelkt.training",
    "write_report": "clrelkt.reports.finish",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: torch alone takes seconds, and --help should not wait for it.
    if name not in _ROOMS:
        raise AttributeError(f"module 'clrelkt' has no attribute {name!r}")
    return getattr(importlib.import_module(_ROOMS[name]), name)
