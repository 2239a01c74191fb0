"""From a name or a path to a corpus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clrelkt.corpora.beir import is_beir, read_beir
from clrelkt.corpora.bundled import load_bundled
from clrelkt.corpora.catalogue import CatalogueEntry, known_corpora
from clrelkt.corpora.fetch import find_entry
from clrelkt.corpora.folders import data_roots
from clrelkt.corpora.mlqa import is_mlqa, read_mlqa
from clrelkt.corpora.model import Corpus
from clrelkt.corpora.paper_tables import is_paper_tables, read_paper_tables
from clrelkt.corpora.parallel import read_parallel
from clrelkt.corpora.squad import read_squad
from clrelkt.corpora.translations import translations_beside, with_translations
from clrelkt.corpora.xorqa import is_xor, read_xor
from clrelkt.corpora.xquad import read_xquad
from clrelkt.errors import DataError, UnknownNameError

__all__ = ["load_corpus"]

_READERS: dict[str, Callable[[Path], Corpus]] = {
    "xquad": lambda folder: read_xquad(folder, name="xquad"),
    "xquad-r": lambda folder: read_xquad(folder, name="xquad-r"),
    "mlqa": lambda folder: read_mlqa(folder, name="mlqa"),
    "xorqa": lambda folder: read_xor(folder, name="xorqa"),
}


def load_corpus(name_or_path: str | Path, *, translations: bool = True) -> Corpus:
    """Read a corpus that ``clrelkt data list`` names, or one in a file or a folder.

    A path is a SQuAD-form JSON file, a folder of such files (one a question language, with
    shared ids and the documents in the English one), or a folder of MLQA, of XOR-TyDi QA, of
    BEIR's form or of the paper's CSV tables.
    Machine translations of its questions are added where ``translations.jsonl`` lies in the
    folder, or ``mine.de.translations.jsonl`` beside the file ``mine.de.json``, unless
    ``translations`` is off.

    Raises:
        UnknownNameError: there is neither such a name nor such a path.
        DataError: a known corpus is not on this machine, or the path has no corpus.
        CorpusError: the files have faults; all of them are in it.
    """
    entries = {entry.name: entry for entry in known_corpora()}
    entry = entries.get(str(name_or_path))
    if entry is not None:
        return _load_known(entry, translations)
    path = Path(name_or_path)
    if path.is_dir():
        return _translated(_read_folder(path), path, translations)
    if path.is_file():
        return _translated(read_squad(path), path, translations)
    names = " ".join(name for name, known in entries.items() if known.kind == "corpus")
    raise UnknownNameError(
        f"no corpus, file or folder {str(name_or_path)!r}; the known corpora are {names}"
    )


def _translated(corpus: Corpus, path: Path, wanted: bool) -> Corpus:
    file = translations_beside(path)
    return with_translations(corpus, file) if wanted and file.is_file() else corpus


def _load_known(entry: CatalogueEntry, translations: bool) -> Corpus:
    if entry.name == "bundled":
        return load_bundled()
    if entry.kind != "corpus":
        raise UnknownNameError(f"{entry.name} are weights, not a corpus")
    folder = find_entry(entry)
    if folder is None:
        places = " or ".join(str(root) for root in data_roots())
        raise DataError(
            f"corpus {entry.name!r} is not on this machine (looked in {places}); "
            f"get it with: clrelkt data get {entry.name}"
        )
    return _translated(_READERS[entry.name](folder), folder, translations)


def _read_folder(path: Path) -> Corpus:
    if is_mlqa(path):
        return read_mlqa(path)
    if is_xor(path):
        return read_xor(path)
    if is_beir(path):
        return read_beir(path)
    if is_paper_tables(path):
        return read_paper_tables(path)
    return read_parallel(path, complete=False)
