"""Where documents come from: a corpus, a file of records, or a folder of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clrelkt.corpora import known_corpora, load_corpus
from clrelkt.corpora.beir import DOCUMENTS_FILE, is_beir
from clrelkt.corpora.languages import ISO_639_1
from clrelkt.corpora.paper_tables import is_paper_tables, paper_documents, paper_tables
from clrelkt.corpora.records import FaultLog
from clrelkt.errors import DataError, Fault, UnknownNameError
from clrelkt.search.documents import IndexDocument, as_index_documents
from clrelkt.search.pages import PAGE_READERS, read_page
from clrelkt.search.record_files import RECORD_READERS, Fields, read_records

__all__ = ["Fields", "Source", "open_source"]


@dataclass(frozen=True, slots=True)
class Source:
    """Documents that can be read from the beginning, always in the same order.

    ``name`` is the same whenever the same source is opened. ``left_out`` are the faults of
    records that were passed over.
    """

    name: str
    read: Callable[[], Iterator[IndexDocument]]
    left_out: list[Fault] = field(default_factory=list)


def open_source(
    name_or_path: str | Path,
    *,
    fields: Fields | None = None,
    language: str | None = None,
    skip_faults: bool = False,
) -> Source:
    """Open a source of documents.

    It is a corpus that ``clrelkt data list`` names; a file of records (``.jsonl``, ``.csv``,
    ``.tsv``, ``.parquet``) or of the SQuAD form (``.json``); a text (``.txt``, ``.md``,
    ``.html``, ``.pdf``); or a folder of records or texts, of BEIR's form, of the paper's CSV
    tables, or of a corpus. Nothing is read but what is asked for, one document at a time, except
    for corpora.

    Args:
        name_or_path: the source.
        fields: which fields of a record are its id, text, title and language.
        language: that of documents which do not say; None to have it detected.
        skip_faults: pass over records and files with faults instead of stopping at the first.

    Raises:
        UnknownNameError: there is neither such a corpus nor such a path, or no such language.
        DataError: nothing at the path can be read.
    """
    if language is not None and language not in ISO_639_1:
        raise UnknownNameError(f"no language {language!r}; expected a code of ISO 639-1, like de")
    path = Path(name_or_path)
    left_out: list[Fault] = []
    log = left_out if skip_faults else None
    known = {entry.name for entry in known_corpora() if entry.kind == "corpus"}
    if str(name_or_path) in known:
        return Source(str(name_or_path), lambda: _corpus(str(name_or_path), language))
    if not path.exists():
        raise UnknownNameError(
            f"no corpus, file or folder {str(name_or_path)!r}; known corpora are "
            f"{' '.join(sorted(known))}"
        )
    read = _reader(path, fields or Fields(), log)

    def documents() -> Iterator[IndexDocument]:
        left_out.clear()
        return as_index_documents(read(), language)

    return Source(str(path.resolve()), documents, left_out)


def _corpus(name_or_path: str | Path, language: str | None) -> Iterator[IndexDocument]:
    corpus = load_corpus(name_or_path)
    return as_index_documents(corpus.documents, language or corpus.document_language)


def _reader(
    path: Path, fields: Fields, left_out: list[Fault] | None
) -> Callable[[], Iterator[IndexDocument]]:
    if path.is_file():
        if path.suffix.lower() == ".json":
            return lambda: _corpus(path, None)
        if path.suffix.lower() not in (*RECORD_READERS, *PAGE_READERS):
            raise DataError(f"{path}: of no known kind; expected {_kinds()}")
        return lambda: _files([path], path.parent, fields, left_out)
    if is_paper_tables(path):
        return lambda: _paper_tables(path)
    if is_beir(path):
        beir = Fields(id="_id", text="text", title="title")
        return lambda: _files([path / DOCUMENTS_FILE], path, beir, left_out)
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in (*RECORD_READERS, *PAGE_READERS)
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    if any(path.glob("*.json")):
        return lambda: _corpus(path, None)
    if not files:
        raise DataError(f"{path}: nothing in it can be read; expected {_kinds()}, or a corpus")
    return lambda: _files(files, path, fields, left_out)


def _kinds() -> str:
    return " ".join(sorted((".json", *RECORD_READERS, *PAGE_READERS)))


def _files(
    files: list[Path], root: Path, fields: Fields, left_out: list[Fault] | None
) -> Iterator[IndexDocument]:
    for file in files:
        if file.suffix.lower() in RECORD_READERS:
            yield from read_records(file, fields, left_out)
            continue
        try:
            yield read_page(file, root)
        except DataError as error:
            if left_out is None:
                raise
            left_out.append(Fault(str(file), "", str(error).removeprefix(f"{file}: ")))


def _paper_tables(folder: Path) -> Iterator[IndexDocument]:
    """Yield the documents of all tables; one that several tables have alike is one document."""
    texts: dict[str, str] = {}
    for path in paper_tables(folder):
        log = FaultLog()
        for document in paper_documents(path, log) if "_doc_en-" in path.name else ():
            text = document.text
            if texts.setdefault(document.id, text) != text:
                log.add(path, f"doc_id {document.id}", "has another text than in another table")
            elif texts[document.id] is text:
                yield from as_index_documents([document], "en")
        log.stop_if_any()
