"""Documents on their way into an index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from clrelkt.corpora.model import Document
from clrelkt.errors import DataError

__all__ = ["IndexDocument", "as_index_documents", "detect_language", "is_unicode"]


@dataclass(frozen=True, slots=True)
class IndexDocument:
    """A document to be indexed.

    Attributes:
        id: unique in the index.
        text: the document; cut into passages. Not looked at where ``passages`` are given.
        title: may be empty.
        language: ISO 639-1; None to have it detected.
        metadata: JSON values; a search can be restricted by those that are no lists or objects.
        passages: ids and texts, of a document that is cut already; they stay whole.
        place: file and record that it comes from, for messages.
    """

    id: str
    text: str = ""
    title: str = ""
    language: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    passages: tuple[tuple[str, str], ...] | None = None
    place: str = ""

    @property
    def sample(self) -> str:
        """The beginning of its text, enough to tell the language."""
        whole = self.text if self.passages is None else " ".join(text for _, text in self.passages)
        return whole[:300]


def as_index_documents(
    documents: Iterable[IndexDocument | Document], language: str | None = None
) -> Iterator[IndexDocument]:
    """Yield documents of a corpus, and those made for an index, as the latter.

    ``language`` is that of documents which do not say.

    Raises:
        DataError: a document without an id or without text.
    """
    for document in documents:
        if isinstance(document, Document):
            passages = tuple((passage.id, passage.text) for passage in document.passages)
            document = IndexDocument(
                document.id, title=document.title, language=language, passages=passages
            )
        elif document.language is None and language is not None:
            document = replace(document, language=language)
        _check(document)
        yield document


def _check(document: IndexDocument) -> None:
    place = f"{document.place}: " if document.place else ""
    if not document.id:
        raise DataError(f"{place}a document without an id; every document needs one")
    texts = [document.text] if document.passages is None else [t for _, t in document.passages]
    if not any(text.strip() for text in texts):
        raise DataError(f"{place}document {document.id!r} has no text; leave it out")
    for text in (document.id, document.title, *texts):
        if not is_unicode(text):
            raise DataError(
                f"{place}document {document.id!r} holds half of a surrogate pair, which is no "
                "character; remove it or put the other half back"
            )


def is_unicode(text: str) -> bool:
    """Tell whether a text is free of halves of surrogate pairs, which are no characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def detect_language(text: str) -> str:
    """Return the language of a text (py3langid), or "" where there is nothing to tell it by."""
    if not any(character.isalpha() for character in text):
        return ""
    from py3langid import classify  # Its model takes a second to read.

    code = str(classify(text)[0])
    return code if len(code) == 2 else ""
