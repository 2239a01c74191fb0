"""Texts with a file of their own: plain, Markdown, HTML and PDF."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from clrelkt.errors import DataError, MissingExtraError
from clrelkt.search.documents import IndexDocument

__all__ = ["PAGE_READERS", "read_page"]

_UNSPACED = re.compile(
    r"(?<=[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uff00-\uffef])\n"
    r"(?=[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uff00-\uffef])"
)
"""A line's end between characters of scripts without spaces: Thai, Lao, Chinese, Japanese."""

_BLOCKS = (
    "p li h1 h2 h3 h4 h5 h6 td th dt dd pre blockquote figcaption summary caption div section "
    "article main ul ol table tr br"
)
_NO_TEXT = ("script", "style", "noscript", "template", "nav", "svg", "head")


def read_page(path: Path, root: Path) -> IndexDocument:
    """Return a file as a document; its id is its path from ``root`` on.

    Lines that were broken to fit a page are joined; paragraphs are kept apart by an empty line.

    Raises:
        DataError: it cannot be read, or has no text.
        MissingExtraError: what reads this kind of file is not installed.
    """
    try:
        title, text = PAGE_READERS[path.suffix.lower()](path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not text.strip():
        raise DataError(f"{path}: there is no text in it")
    name = path.relative_to(root).as_posix()
    return IndexDocument(
        id=name,
        text=text,
        title=title or path.stem,
        metadata={"path": name},
        place=str(path),
    )


def _read_text(path: Path) -> tuple[str, str]:
    return "", _paragraphs(_decoded(path))


def _read_markdown(path: Path) -> tuple[str, str]:
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise MissingExtraError("markdown-it-py", "index") from error
    return _from_html(MarkdownIt("commonmark").enable("table").render(_decoded(path)))


def _read_html(path: Path) -> tuple[str, str]:
    return _from_html(path.read_bytes())


def _read_pdf(path: Path) -> tuple[str, str]:
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError as error:
        raise MissingExtraError("pypdf", "index") from error
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    try:
        with PdfReader(path) as reader:
            title = reader.metadata.title if reader.metadata else None
            pages = [page.extract_text() for page in reader.pages]
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError) as error:
        # Of a damaged file the library raises errors of many kinds.
        raise DataError(f"{path}: cannot be read as PDF: {error}") from error
    return (title or "").strip(), _paragraphs("\n\n".join(pages))


def _from_html(content: str | bytes) -> tuple[str, str]:
    """Return the title, and the text with an empty line between blocks."""
    try:
        from bs4 import BeautifulSoup
    except ImportError as error:
        raise MissingExtraError("beautifulsoup4", "index") from error
    soup = BeautifulSoup(content, "html.parser")
    heading = soup.title or soup.h1
    title = " ".join(heading.get_text(" ").split()) if heading else ""
    for element in soup(list(_NO_TEXT)):
        element.decompose()
    for text in soup.find_all(string=True):
        if text.parent is None or text.find_parent("pre") is None:
            text.replace_with(re.sub(r"\s+", " ", text))
    for element in soup(_BLOCKS.split()):
        element.insert_before("\n\n")
        element.insert_after("\n\n")
    return title, _paragraphs(soup.get_text())


def _decoded(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} is not UTF-8 text; save the file as UTF-8"
        ) from error


def _paragraphs(text: str) -> str:
    lines = (line.strip() for line in text.replace("\x00", "").splitlines())
    blocks = re.split(r"\n{2,}", "\n".join(lines).strip())
    return "\n\n".join(_UNSPACED.sub("", block).replace("\n", " ") for block in blocks)


PAGE_READERS: Mapping[str, Callable[[Path], tuple[str, str]]] = MappingProxyType(
    {
        ".txt": _read_text,
        ".md": _read_markdown,
        ".html": _read_html,
        ".htm": _read_html,
        ".pdf": _read_pdf,
    }
)
"""What reads a title and a text from a file, by its ending."""
