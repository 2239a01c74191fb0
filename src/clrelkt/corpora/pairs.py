"""Sentence pairs: English texts and their translations into one other language.

Two forms are read. TSV, plain or gzipped, has one pair a line: ``english<TAB>other``, and in a
third column, if there is one, where the pair is from. Moses has two files of equally many lines,
``NAME.en`` and ``NAME.LANG``.

The language stands in the name (``x.el.tsv``, ``x.en-el.tsv``, ``x.en-el.el``) or is the name of
the folder (``el/sentences.tsv.gz``).
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clrelkt.corpora.folders import data_roots, find_data
from clrelkt.corpora.languages import ISO_639_1
from clrelkt.corpora.model import Corpus
from clrelkt.corpora.records import FaultLog
from clrelkt.errors import DataError, UnknownNameError
from clrelkt.files import storage_errors, write_text

__all__ = [
    "KINDS",
    "SentencePairs",
    "drop_shared",
    "find_pairs",
    "hold_out",
    "pair_languages",
    "question_pairs",
    "read_pairs",
    "thin_pairs",
    "write_pairs",
]

KINDS = ("sentences", "docs", "ui_docs_po", "dict")
"""Kinds of pairs, told by the file's name: sentences, manuals, software strings, word lists.

A file with any other name holds sentences.
"""

_FOLDER = "parallel"
_LANGUAGE = re.compile(r"(?:^|\.)(?:en-)?([a-z]{2})(?:-en)?$")
_TSV = re.compile(r"\.tsv(\.gz)?$")


@dataclass(frozen=True, slots=True)
class SentencePairs:
    """Pairs of an English text and its translation into ``language``; no pair stands twice.

    The four tuples are of one length: pair ``i`` is ``english[i]`` and ``other[i]``, it is from
    ``sources[i]`` and of the kind ``kinds[i]`` (one of ``KINDS``).
    """

    language: str
    english: tuple[str, ...]
    other: tuple[str, ...]
    sources: tuple[str, ...]
    kinds: tuple[str, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.english), len(self.other), len(self.sources), len(self.kinds)}
        if len(lengths) > 1:
            raise DataError(
                f"pairs of {self.language!r}: {len(self.english)} English texts, "
                f"{len(self.other)} others, {len(self.sources)} sources, {len(self.kinds)} kinds; "
                "as many of each expected"
            )

    def __len__(self) -> int:
        return len(self.english)

    def select(self, numbers: Iterable[int]) -> SentencePairs:
        """Return the pairs with the given numbers, in that order."""
        chosen = tuple(numbers)
        return SentencePairs(
            self.language,
            tuple(self.english[number] for number in chosen),
            tuple(self.other[number] for number in chosen),
            tuple(self.sources[number] for number in chosen),
            tuple(self.kinds[number] for number in chosen),
        )


@dataclass(frozen=True, slots=True)
class _PairFile:
    """Where pairs lie: one TSV file, or two of Moses, the English one first."""

    paths: tuple[Path, ...]
    language: str | None

    @property
    def stem(self) -> str:
        """The name without endings and language."""
        name = self.paths[0].name
        if len(self.paths) == 2:
            name = self.paths[0].stem
        return _LANGUAGE.sub("", _TSV.sub("", name))

    @property
    def kind(self) -> int:
        """The place of its kind in ``KINDS``; a file called otherwise holds sentences."""
        return KINDS.index(self.stem) if self.stem in KINDS else 0


def read_pairs(path: Path, language: str | None = None) -> SentencePairs:
    """Read a TSV file, a pair of Moses files (either of them, or what their names share).

    ``language`` is needed only where the name does not tell it.

    Raises:
        CorpusError: the file has faults; all of them are in it.
        DataError: there is no such file, or its language is not known.
    """
    file = _pair_file(path, language)
    code = language or file.language
    if code is None:
        raise DataError(
            f"{path}: the name does not tell the language. Name it like x.el.tsv, or put it into a "
            "folder with the language's code"
        )
    _check_code(code, path)
    return _read([file], code)


def find_pairs(
    paths: Sequence[Path], languages: Sequence[str], kinds: Sequence[str] = KINDS
) -> dict[str, SentencePairs]:
    """Read the pairs of each language from files and folders, several files merged.

    A folder is searched for ``LANG/*.tsv``, ``*.tsv`` (both also ``.gz``) and Moses files. The
    path ``parallel`` also stands for the folder of that name among the data folders. Pairs of other
    kinds than ``kinds`` may be left out: files that hold nothing else are not read.

    Raises:
        CorpusError: a file has faults; all of them are in it.
        DataError: a path or a language's pairs are missing, or a code is none of ISO 639-1.
    """
    for code in languages:
        _check_code(code, None)
    files = _files(paths)
    # A pair that stands in files of several kinds is of the first of them.
    last = max((KINDS.index(kind) for kind in kinds), default=0)
    found: dict[str, SentencePairs] = {}
    for code in dict.fromkeys(languages):
        own = [file for file in files if file.language == code and file.kind <= last]
        if len(languages) == 1:
            own += [file for file in files if file.language is None]
        if not own:
            there = sorted({file.language for file in files if file.language is not None})
            raise DataError(
                f"no sentence pairs of {code!r} in {', '.join(map(str, paths))}; "
                f"there are {' '.join(there) or 'none at all'}"
            )
        found[code] = _read(own, code)
    return found


def pair_languages(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the languages that ``find_pairs`` finds pairs of, sorted.

    Raises:
        DataError: a path is missing.
    """
    return tuple(sorted({file.language for file in _files(paths) if file.language is not None}))


def hold_out(
    pairs: SentencePairs,
    count: int,
    seed: int = 0,
    kinds: Sequence[str] = ("sentences",),
    source: str | None = None,
) -> tuple[SentencePairs, SentencePairs]:
    """Draw ``count`` pairs of ``kinds`` for a test and return (rest, held out).

    With ``source`` they are pairs from there alone.

    The held-out pairs differ from each other on both sides, and no pair of the rest shares its
    English or its other text with one of them; letter case and white space make no difference.
    Which pairs are held out, and in which order, depends on their texts and ``seed`` alone.

    Raises:
        DataError: there are fewer such pairs.
    """
    wanted = [
        number
        for number, (kind, place) in enumerate(zip(pairs.kinds, pairs.sources, strict=True))
        if kind in kinds and source in (None, place)
    ]
    wanted.sort(key=lambda number: _draw(seed, pairs.english[number], pairs.other[number]))
    held: list[int] = []
    english: set[str] = set()
    other: set[str] = set()
    for number in wanted:
        if len(held) == count:
            break
        own, translated = _folded(pairs.english[number]), _folded(pairs.other[number])
        if own not in english and translated not in other:
            held.append(number)
            english.add(own)
            other.add(translated)
    if len(held) < count:
        raise DataError(
            f"language {pairs.language!r}: {count} pairs of {source or ' '.join(kinds)} to be held "
            f"out, but only {len(held)} differ on both sides"
        )
    drawn = pairs.select(held)
    return drop_shared(pairs, drawn), drawn


def thin_pairs(pairs: SentencePairs, at_most: Mapping[str, int]) -> SentencePairs:
    """Return at most so many pairs of each kind that ``at_most`` names, in their order.

    Which ones depends on the pairs' texts alone; kinds that are not named stay whole.
    """
    chosen: set[int] = set()
    for kind in KINDS:
        own = [number for number, name in enumerate(pairs.kinds) if name == kind]
        own.sort(key=lambda number: _draw(0, pairs.english[number], pairs.other[number]))
        chosen.update(own[: at_most.get(kind, len(own))])
    return pairs.select(sorted(chosen))


def write_pairs(pairs: SentencePairs, folder: Path) -> None:
    """Write pairs as ``LANG/KIND.tsv`` files that ``find_pairs`` reads.

    Raises:
        StorageError: they cannot be written.
    """
    for kind in dict.fromkeys(pairs.kinds):
        rows = zip(pairs.english, pairs.other, pairs.sources, pairs.kinds, strict=True)
        lines = ["\t".join(row[:3]) + "\n" for row in rows if row[3] == kind]
        path = folder / pairs.language / f"{kind}.tsv"
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(lines))


def drop_shared(pairs: SentencePairs, held_out: SentencePairs) -> SentencePairs:
    """Return the pairs that share neither their English nor their other text with a held-out one.

    Letter case and white space make no difference.
    """
    english = {_folded(text) for text in held_out.english}
    other = {_folded(text) for text in held_out.other}
    return pairs.select(
        number
        for number in range(len(pairs))
        if _folded(pairs.english[number]) not in english
        and _folded(pairs.other[number]) not in other
    )


def question_pairs(corpus: Corpus, language: str) -> SentencePairs:
    """Return the corpus's questions in ``language`` with the same questions in English.

    Questions without an English one are left out; no pair stands twice.
    """
    found: dict[tuple[str, str], None] = {}
    for question in corpus.questions:
        if question.language == language:
            english = corpus.translation(question, "en")
            if english is not None:
                found[english.text, question.text] = None
    return SentencePairs(
        language,
        tuple(english for english, _ in found),
        tuple(other for _, other in found),
        (corpus.name,) * len(found),
        (KINDS[0],) * len(found),
    )


def _draw(seed: int, english: str, other: str) -> bytes:
    return hashlib.blake2b(f"{seed}\t{english}\t{other}".encode(), digest_size=16).digest()


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _check_code(code: str, path: Path | None) -> None:
    if code in ISO_639_1 and code != "en":
        return
    place = f"{path}: " if path else ""
    what = "is the language on the other side of every pair" if code == "en" else "is not known"
    raise UnknownNameError(f"{place}language {code!r} {what}; a code of ISO 639-1 expected")


def _files(paths: Sequence[Path]) -> list[_PairFile]:
    files: dict[tuple[Path, ...], _PairFile] = {}
    for path in paths:
        place = _place(Path(path))
        found = _files_below(place) if place.is_dir() else [_pair_file(place, None)]
        files |= {file.paths: file for file in found}
    return list(files.values())


def _place(path: Path) -> Path:
    if path.exists() or str(path) != _FOLDER:
        return path
    found = find_data(_FOLDER)
    if found is None:
        raise DataError(
            f"there are no sentence pairs on this machine: no folder {_FOLDER} here or in "
            f"{' or '.join(str(root) for root in data_roots())}"
        )
    return found


def _files_below(folder: Path) -> Iterator[_PairFile]:
    inside = [folder]
    inside += [child for child in folder.iterdir() if child.is_dir() and child.name in ISO_639_1]
    for place in sorted(inside):
        for path in sorted(place.iterdir()):
            if _TSV.search(path.name):
                yield _PairFile((path,), _language_of(path))
            elif path.suffix == ".en":
                for partner in _partners(path):
                    yield _PairFile((path, partner), partner.suffix[1:])


def _pair_file(path: Path, language: str | None) -> _PairFile:
    if _TSV.search(path.name):
        return _PairFile((path,), _language_of(path))
    if path.suffix[1:] in ISO_639_1 and path.is_file():
        prefix, named = path.with_suffix(""), path.suffix[1:]
    else:
        prefix, named = path, "en"
    english = prefix.with_name(f"{prefix.name}.en")
    partners = [english.with_name(f"{prefix.name}.{named}")] if named != "en" else []
    partners = partners or _partners(english)
    if language is not None:
        partners = [partner for partner in partners if partner.suffix == f".{language}"]
    if not english.is_file() or not partners:
        if path.is_file() and prefix == path:
            return _PairFile((path,), _language_of(path))
        raise DataError(
            f"{path}: no sentence pairs there. A TSV file, a folder, or two files NAME.en and "
            "NAME.LANG expected"
        )
    if len(partners) > 1:
        codes = " ".join(partner.suffix[1:] for partner in partners)
        raise DataError(f"{path}: goes with several languages ({codes}); name one of those files")
    return _PairFile((english, partners[0]), partners[0].suffix[1:])


def _partners(english: Path) -> list[Path]:
    others = (english.with_suffix(f".{code}") for code in sorted(ISO_639_1 - {"en"}))
    return [path for path in others if path.is_file()]


def _language_of(path: Path) -> str | None:
    found = _LANGUAGE.search(_TSV.sub("", path.name))
    for code in (found.group(1) if found else "", path.parent.name):
        if code in ISO_639_1 and code != "en":
            return code
    return None


def _read(files: Iterable[_PairFile], language: str) -> SentencePairs:
    log = FaultLog()
    origins: dict[tuple[str, str], tuple[int, str]] = {}
    for file in files:
        kind = file.kind
        for english, other, source in _records(file, log):
            key, origin = (english, other), (kind, source)
            # Of a pair that stands twice one origin is kept, whichever file came first.
            origins[key] = min(origins.get(key, origin), origin)
    log.stop_if_any()
    return SentencePairs(
        language,
        tuple(english for english, _ in origins),
        tuple(other for _, other in origins),
        tuple(source for _, source in origins.values()),
        tuple(KINDS[kind] for kind, _ in origins.values()),
    )


def _records(file: _PairFile, log: FaultLog) -> Iterator[tuple[str, str, str]]:
    source = file.stem or file.paths[0].parent.name
    two = len(file.paths) == 2
    rows = _moses_rows(file.paths, log) if two else _tsv_rows(file.paths[0], log)
    for path, number, row in rows:
        english, other = row[0].strip(), row[1].strip()
        if english and other:
            yield english, other, (row[2].strip() if len(row) > 2 else "") or source
        else:
            side = "English" if not english else "other"
            log.add(path, f"line {number}", f"the {side} side is empty; remove the pair")


def _tsv_rows(path: Path, log: FaultLog) -> Iterator[tuple[Path, int, list[str]]]:
    for number, line in enumerate(_lines(path, log), start=1):
        if not line.strip():
            continue
        row = line.split("\t")
        if 2 <= len(row) <= 3:
            yield path, number, row
        else:
            what = "has no tab" if len(row) == 1 else f"has {len(row)} columns"
            log.add(path, f"line {number}", f"{what}; english<TAB>other[<TAB>source] expected")


def _moses_rows(paths: Sequence[Path], log: FaultLog) -> Iterator[tuple[Path, int, list[str]]]:
    before = len(log.faults)
    sides = [_lines(path, log) for path in paths]
    if len(log.faults) > before:
        return
    if len(sides[0]) != len(sides[1]):
        log.add(
            paths[1],
            f"line {min(map(len, sides)) + 1}",
            f"has {len(sides[1])} lines, {paths[0].name} has {len(sides[0])}; as many expected",
        )
        return
    for number, (english, other) in enumerate(zip(*sides, strict=True), start=1):
        if english.strip() or other.strip():
            yield paths[0] if not english.strip() else paths[1], number, [english, other]


def _lines(path: Path, log: FaultLog) -> list[str]:
    """Return the lines of a UTF-8 file, gzipped or not; none, and a fault, if it is neither."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (EOFError, zlib.error):
        log.add(path, "", "is cut short or damaged; fetch it again")
        return []
    except OSError as error:
        log.add(path, "", f"cannot be read: {error.strerror or error}")
        return []
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        log.add(path, f"line {line}", "is not UTF-8 text; save it as UTF-8")
        return []
    # Not splitlines(): a text may hold U+2028 or U+0085 as it is.
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines
