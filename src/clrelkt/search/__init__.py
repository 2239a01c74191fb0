"""Search: documents become an index, and a question in any language finds their passages.

``Index`` is the door. Behind it are segments that never change (``segments``), generations that
say which of them make up the index (``generations``), what writes them (``writing``), and stores
that find the nearest vectors (``stores``).
"""

from __future__ import annotations

from clrelkt.search.documents import IndexDocument
from clrelkt.search.hits import Highlight, Hit, StoredDocument, StoredPassage
from clrelkt.search.index import Index
from clrelkt.search.settings import IndexSettings

__all__ = [
    "Highlight",
    "Hit",
    "Index",
    "IndexDocument",
    "IndexSettings",
    "StoredDocument",
    "StoredPassage",
]
