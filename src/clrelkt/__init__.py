"""Cross-lingual retrieval by language knowledge transfer."""

from __future__ import annotations
