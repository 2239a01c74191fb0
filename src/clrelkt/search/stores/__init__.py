"""Where the nearest vectors are looked for, behind one protocol."""

from clrelkt.search.stores.exact import ExactStore
from clrelkt.search.stores.protocol import VectorStore

__all__ = ["ExactStore", "VectorStore"]
