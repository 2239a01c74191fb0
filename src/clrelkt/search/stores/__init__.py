"""Where the nearest vectors are looked for, behind one protocol."""

from clrelkt.search.stores.choice import check_store, open_store
from clrelkt.search.stores.exact import ExactStore
from clrelkt.search.stores.protocol import VectorStore

__all__ = ["ExactStore", "VectorStore", "check_store", "open_store"]
