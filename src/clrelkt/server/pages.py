"""The files of the page, read once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType

__all__ = ["PAGE_FILES", "PageFile"]

_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "theme.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file as it is sent."""

    content: bytes
    content_type: str
    etag: str

    @classmethod
    def read(cls, name: str) -> PageFile:
        """Read a file of the package."""
        content = files("clrelkt.server").joinpath("page", name).read_bytes()
        return cls(content, _TYPES[name], f'"{hashlib.sha256(content).hexdigest()[:16]}"')


def _read_all() -> Mapping[str, PageFile]:
    found = {name: PageFile.read(name) for name in _TYPES}
    found[""] = found.pop("index.html")
    return MappingProxyType(found)


PAGE_FILES = _read_all()
"""Every file by its path; the page itself is at ""."""
