"""Corpora: questions in several languages over documents in one.

What data goes through first: known corpora and files of one's own become a ``Corpus``, and a
seed splits it.
"""

from __future__ import annotations

from clrelkt.corpora.catalogue import CatalogueEntry, catalogue_entry, known_corpora
from clrelkt.corpora.check import Inspection, check_path, inspect_path
from clrelkt.corpora.folders import data_root, find_data
from clrelkt.corpora.loading import load_corpus
from clrelkt.corpora.model import (
    Answer,
    Corpus,
    Document,
    FixedSplit,
    Part,
    Passage,
    Question,
)
from clrelkt.corpora.overlap import Overlap, shared_documents
from clrelkt.corpora.splits import Split, SplitBy, Splits, split_corpus, take_split
from clrelkt.corpora.translations import with_translations

__all__ = [
    "Answer",
    "CatalogueEntry",
    "Corpus",
    "Document",
    "FixedSplit",
    "Inspection",
    "Overlap",
    "Part",
    "Passage",
    "Question",
    "Split",
    "SplitBy",
    "Splits",
    "catalogue_entry",
    "check_path",
    "data_root",
    "find_data",
    "inspect_path",
    "known_corpora",
    "load_corpus",
    "shared_documents",
    "split_corpus",
    "take_split",
    "with_translations",
]
