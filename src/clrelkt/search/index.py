"""The index: documents in, questions in, passages out."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from clrelkt.corpora.model import Document
from clrelkt.encoders import load_encoder
from clrelkt.encoders.protocol import Encoder
from clrelkt.errors import EncoderError, SearchIndexError, SettingsError, UnknownNameError
from clrelkt.search.changes import delete_from
from clrelkt.search.documents import IndexDocument, as_index_documents
from clrelkt.search.fingerprint import Fingerprint
from clrelkt.search.generations import IndexFolder
from clrelkt.search.highlights import Highlighter
from clrelkt.search.hits import Highlight, Hit, Scalar, StoredDocument, Where
from clrelkt.search.ranking import By, Ranker, Ranking
from clrelkt.search.settings import IndexSettings
from clrelkt.search.snapshot import Filter, PlacedRow, Snapshot
from clrelkt.search.stores import open_store
from clrelkt.search.writing import (
    CHECKPOINT_SECONDS,
    IndexWriter,
    WriteKind,
    exclusive,
)

__all__ = ["Index"]


class Index:
    """Documents that can be searched by questions in any language that the encoder knows.

    Searches may run in several threads at once. What another process writes shows after
    ``refresh``; until then every search sees the state that was opened.
    """

    def __init__(self, folder: IndexFolder, encoder: Encoder, snapshot: Snapshot) -> None:
        """Use ``Index.build`` or ``Index.open``."""
        self._folder = folder
        self.encoder = encoder
        self._refreshing = threading.Lock()
        self._highlighter = Highlighter(encoder)
        self._ranker = _ranker(folder, snapshot)

    @classmethod
    def build(
        cls,
        encoder: Encoder,
        documents: Iterable[IndexDocument | Document],
        folder: str | Path,
        *,
        settings: IndexSettings | None = None,
        language: str | None = None,
        source: str = "",
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        progress: bool = False,
    ) -> Self:
        """Make a new index.

        A build that was killed goes on when the same is called again.

        Args:
            encoder: what makes the vectors.
            documents: the documents, of a corpus or made for an index; read one by one.
            folder: where the index is written; it must not exist, or be empty.
            settings: how it is made.
            language: that of documents which do not say; None to have it detected.
            source: where the documents come from; a build with another source does not go on.
            checkpoint_seconds: how much work a kill loses at most.
            progress: whether a bar is shown.

        Raises:
            DataError: a document without id or text, or with an id that stands twice.
            SearchIndexError: there is an index already, or one begun with other settings.
            StorageError: the folder cannot be written, or holds something else.
        """
        place = IndexFolder(Path(folder))
        place.create(Fingerprint.of(encoder), settings or IndexSettings())
        with exclusive(place):
            if place.newest() is None:
                writer = IndexWriter(
                    place,
                    encoder,
                    "build",
                    source=source,
                    checkpoint_seconds=checkpoint_seconds,
                    progress=progress,
                )
                writer.write(as_index_documents(documents, language))
        return cls(place, encoder, Snapshot.open(place))

    @classmethod
    def open(
        cls, folder: str | Path, encoder: Encoder | str | Path | None = None, *, device: str = "cpu"
    ) -> Self:
        """Open an index to search it.

        Args:
            folder: the index.
            encoder: the encoder, its name or folder; None is the one that the index names.
            device: where an encoder that is loaded computes.

        Raises:
            SearchIndexError: the folder is no index, one of a newer format or unfinished; the
                encoder is missing, or is another one than the index was made with.
        """
        place = IndexFolder(Path(folder))
        fingerprint = place.describe().encoder
        if encoder is None or isinstance(encoder, str | Path):
            name = fingerprint.name if encoder is None else str(encoder)
            try:
                encoder = load_encoder(name).to(device)
            except (EncoderError, UnknownNameError) as error:
                raise SearchIndexError(
                    f"{folder}: its encoder {name!r} cannot be loaded ({error}); name the "
                    "encoder's folder with --encoder"
                ) from error
        fingerprint.check(encoder, place.path)
        return cls(place, encoder, Snapshot.open(place))

    def search(
        self,
        question: str,
        k: int = 10,
        *,
        languages: Sequence[str] | None = None,
        where: Where | None = None,
        by: By = "passage",
        hybrid: bool | None = None,
        balanced: bool = False,
        highlights: bool = True,
    ) -> list[Hit]:
        """Return the best hits for one question; see ``search_batch``."""
        return self.search_batch(
            [question],
            k,
            languages=languages,
            where=where,
            by=by,
            hybrid=hybrid,
            balanced=balanced,
            highlights=highlights,
        )[0]

    def search_batch(
        self,
        questions: Sequence[str],
        k: int = 10,
        *,
        vectors: np.ndarray | None = None,
        languages: Sequence[str] | None = None,
        where: Where | None = None,
        by: By = "passage",
        hybrid: bool | None = None,
        balanced: bool = False,
        highlights: bool = True,
    ) -> list[list[Hit]]:
        """Return the best hits for each question, best first.

        Args:
            questions: the questions, in any language that the encoder knows.
            k: how many hits a question at most.
            vectors: the questions' vectors, shape (questions, dimension), float32, where they
                are known already (``encode_questions``).
            languages: only documents in these languages.
            where: only documents whose metadata have these values; of several for a key one is
                enough.
            by: whether a document may be hit by several of its passages, or by its best alone.
            hybrid: whether BM25's ranking of the same passages is joined in, each passage weighed
                by how much of the question it has. None: where the index has its words. On
                XQuAD's train and dev questions that is better in every language than vectors
                alone (``bench/hybrid.py``).
            balanced: whether the languages of the documents take turns among the hits.
            highlights: whether the sentence nearest to the question is looked for in each hit.

        Raises:
            DataError: an empty question.
            SettingsError: k is below 1, or an option that the index cannot serve.
        """
        _check_search(questions, k, by)
        ranker = self._ranker
        has_words = ranker.snapshot.description.settings.words
        if hybrid and not has_words:
            raise SettingsError("this index has no words for hybrid searches; index with --words")
        if not questions:
            return []
        if vectors is None:
            vectors = self.encode_questions(questions)
        chosen: Filter = (
            None if languages is None else tuple(sorted(set(languages))),
            tuple(sorted((key, _several(value)) for key, value in (where or {}).items())),
        )
        hybrid = has_words if hybrid is None else hybrid
        ranked = ranker(questions, vectors, Ranking(k, chosen, by, hybrid, balanced))
        placed = ranker.snapshot.read(row for found in ranked for row, _ in found)
        return [
            self._hits(vector, found, [placed[row] for row, _ in found], highlights)
            for vector, found in zip(vectors, ranked, strict=True)
        ]

    def encode_questions(self, questions: Sequence[str]) -> np.ndarray:
        """Return the questions' vectors, shape (questions, dimension), float32."""
        return self.encoder.encode(questions, "question")

    def add(
        self,
        documents: Iterable[IndexDocument | Document],
        *,
        language: str | None = None,
        source: str = "",
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        progress: bool = False,
    ) -> int:
        """Add documents, and return how many; they show all at once when all are there.

        Raises:
            DataError: a document whose id is in the index already.
            StorageError: the folder cannot be written, or another process is writing.
        """
        return self._write("add", documents, language, source, checkpoint_seconds, progress)

    def replace(
        self,
        documents: Iterable[IndexDocument | Document],
        *,
        language: str | None = None,
        source: str = "",
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        progress: bool = False,
    ) -> int:
        """Add documents, in the place of those that have their ids; return how many."""
        return self._write("replace", documents, language, source, checkpoint_seconds, progress)

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents by their ids, all of them or none; return how many.

        Raises:
            DataError: there is no document of that id.
        """
        wanted = list(dict.fromkeys(ids))
        delete_from(self._folder.path, wanted)
        self.refresh()
        return len(wanted)

    def documents(
        self,
        *,
        languages: Sequence[str] | None = None,
        where: Where | None = None,
        first: int = 0,
    ) -> Iterator[StoredDocument]:
        """Yield the documents in the order of the index, from the one numbered ``first`` on."""
        return self._ranker.snapshot.iterate(languages, where, first)

    def document(self, id_: str) -> StoredDocument | None:
        """Return one document; None where there is none of that id."""
        snapshot = self._ranker.snapshot
        for position, number in snapshot.find([id_]).values():
            return snapshot.segments[position].document(number)
        return None

    def languages(self) -> dict[str, int]:
        """Return the languages of the documents, and how many documents have each."""
        return dict(self._ranker.snapshot.languages)

    def info(self) -> dict[str, Any]:
        """Return what there is to say about the index, as a JSON object."""
        return self._ranker.snapshot.info(self._folder)

    @property
    def version(self) -> int:
        """The generation that searches see; every change of the index makes a higher one."""
        return self._ranker.snapshot.generation.number

    @property
    def passages(self) -> int:
        """How many passages can be found."""
        return self._ranker.snapshot.passages

    def __len__(self) -> int:
        """How many documents there are."""
        return self._ranker.snapshot.documents

    def refresh(self) -> bool:
        """Go over to the newest generation, and tell whether there was a newer one.

        Searches that are under way end with the state that they have begun with.
        """
        with self._refreshing:
            newest = self._folder.newest()
            if newest is None or newest.number == self.version:
                return False
            self._ranker = _ranker(self._folder, Snapshot.open(self._folder))
            return True

    def close(self) -> None:
        """Close its files; the index must not be used afterwards."""
        self._ranker.store.close()
        self._ranker.snapshot.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(
        self,
        kind: WriteKind,
        documents: Iterable[IndexDocument | Document],
        language: str | None,
        source: str,
        checkpoint_seconds: float,
        progress: bool,
    ) -> int:
        with exclusive(self._folder):
            writer = IndexWriter(
                self._folder,
                self.encoder,
                kind,
                source=source,
                checkpoint_seconds=checkpoint_seconds,
                progress=progress,
            )
            written = writer.write(as_index_documents(documents, language))
        self.refresh()
        return written

    def _hits(
        self,
        question: np.ndarray,
        found: Sequence[tuple[int, float]],
        placed: Sequence[PlacedRow],
        highlights: bool,
    ) -> list[Hit]:
        sentences: Sequence[tuple[Highlight, ...]] = [()] * len(placed)
        if highlights:
            sentences = self._highlighter(question, placed)
        scores = [score for _, score in found]
        return [
            Hit(
                rank,
                score,
                hit.stored.document_id,
                hit.stored.passage_id,
                hit.stored.title,
                hit.stored.text,
                hit.stored.language,
                hit.stored.metadata,
                own,
            )
            for rank, (score, hit, own) in enumerate(zip(scores, placed, sentences, strict=True), 1)
        ]


def _ranker(folder: IndexFolder, snapshot: Snapshot) -> Ranker:
    generation = snapshot.generation
    file = generation.store_file and folder.stores / generation.store_file
    segments = {int(segment.name): segment.block for segment in snapshot.segments}
    store = open_store(generation.store, file or None, snapshot.description.id, segments)
    return Ranker(snapshot, store)


def _several(value: Scalar | Sequence[Scalar]) -> tuple[Scalar, ...]:
    return (value,) if isinstance(value, str | int | float | bool) else tuple(value)


def _check_search(questions: Sequence[str], k: int, by: By) -> None:
    from clrelkt.errors import DataError

    if k < 1:
        raise SettingsError(f"k is {k}; at least 1 hit must be asked for")
    if by not in ("passage", "document"):
        raise SettingsError(f"by is {by!r}; expected passage or document")
    for number, question in enumerate(questions):
        which = f"question {number}" if len(questions) > 1 else "the question"
        if not question.strip():
            raise DataError(f"{which} is empty")
        if any("\ud800" <= character <= "\udfff" for character in question):
            raise DataError(
                f"{which} ({question[:60]!r}) holds half of a surrogate pair, which is no character"
            )
