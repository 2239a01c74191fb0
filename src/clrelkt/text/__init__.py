"""Words in any script."""

from __future__ import annotations

from clrelkt.text.words import IcuWords, WordTokenizer

__all__ = ["IcuWords", "WordTokenizer"]
