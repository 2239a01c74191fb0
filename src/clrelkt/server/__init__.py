"""An index behind HTTP: searches in batches, documents, metrics, and a page to ask on.

A request goes through the ``gate`` (limits), is read (``requests``), waits for a batch
(``batching``), is searched (``service``) and answered (``answers``).
"""

from __future__ import annotations

from clrelkt.server.running import Address, make_server, serve
from clrelkt.server.settings import ServerSettings

__all__ = ["Address", "ServerSettings", "make_server", "serve"]
