"""Every store finds what the exact one finds, filters and updates among it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clrelkt.corpora import Corpus
from clrelkt.encoders import MuseEncoder
from clrelkt.errors import SearchIndexError, SettingsError
from clrelkt.search import Index, IndexDocument, IndexSettings
from clrelkt.search.changes import compact_index, copy_to_store
from clrelkt.search.stores.faiss import FaissStore, write_faiss
from clrelkt.search.vectors import VectorBlock, exact_search

QUESTIONS = ("Wer war Nikola Tesla?", "Who won the Super Bowl?", "超级碗在哪里举行？")  # noqa: RUF001
NEW = IndexDocument("bridges", "The town has seven bridges over the river.", language="en")


def ids(index: Index, **options: Any) -> list[list[str]]:
    found = index.search_batch(QUESTIONS, 5, hybrid=False, highlights=False, **options)
    return [[hit.passage_id for hit in hits] for hits in found]


def check_store(store: str, folder: Path, muse: MuseEncoder) -> None:
    with Index.open(folder, muse) as exact:
        expected = [ids(exact), ids(exact, by="document"), ids(exact, languages=["de"])]
        copy_to_store(folder, store)
        index = Index.open(folder, muse)
        assert index.info()["store"] == store
        assert [ids(index), ids(index, by="document"), ids(index, languages=["de"])] == expected
        assert expected[2] == [[], [], []]
        reader = Index.open(folder, muse)
        index.add([NEW])
        assert index.search("Wie viele Brücken gibt es?", 1)[0].document_id == "bridges"
        assert ids(reader) == expected[0]
        best = expected[0][1][0]
        index.delete([best.split("#")[0]])
        assert best not in ids(index)[1]
        assert ids(reader) == expected[0]
        index.add([IndexDocument("more", "Cows eat grass and hay.", language="en")])
        segments = index.info()["segments"]
        compact_index(folder)
        before = ids(index)
        assert index.refresh()
        assert ids(index) == before
        assert index.info()["segments"] < segments
        assert index.search("Wie viele Brücken gibt es?", 1)[0].document_id == "bridges"
        copy_to_store(folder, "exact")
        assert index.refresh()
        assert ids(index) == before
        index.close()
        reader.close()


@pytest.mark.parametrize("store", ["hnsw", "ivf"])
def test_faiss(store: str, xquad_copy: Path, muse: MuseEncoder) -> None:
    check_store(store, xquad_copy, muse)


def test_inverted_files_of_many_rows(tmp_path: Path) -> None:
    """Compressed to a bit a number, compared again; with a filter, and with rows added later."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((500, 64))
    vectors = centres[rng.integers(0, 500, 25_000)] + 0.7 * rng.standard_normal((25_000, 64))
    halves = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    blocks = [VectorBlock(halves[:24_000]), VectorBlock(halves[24_000:])]
    write_faiss(tmp_path / "rows.faiss", "ivf", blocks[:1])
    assert (tmp_path / "rows.faiss").stat().st_size < halves.nbytes / 4
    store = FaissStore(tmp_path / "rows.faiss", blocks)
    questions = halves[::500].astype(np.float32)
    allowed = np.arange(25_000) % 10 != 0
    for permitted in (None, allowed):
        found = store.search(questions, 10, permitted)
        exact = exact_search(questions, blocks, 10, permitted)
        same = [len(set(a) & set(b)) for a, b in zip(found.rows, exact.rows, strict=True)]
        assert sum(same) / len(same) >= 9.5
        assert permitted is None or permitted[found.rows].all()
    np.testing.assert_allclose(found.scores[:, 0], exact.scores[:, 0], atol=1e-3)


def test_milvus(milvus: str, xquad_copy: Path, muse: MuseEncoder) -> None:
    check_store(milvus, xquad_copy, muse)


def test_milvus_that_is_not_there(xquad_copy: Path, muse: MuseEncoder) -> None:
    with pytest.raises(SearchIndexError, match=r"milvus://127\.0\.0\.1:9: .*server running there"):
        copy_to_store(xquad_copy, "milvus://127.0.0.1:9")
    with Index.open(xquad_copy, muse) as index:
        assert index.info()["store"] == "exact"


@pytest.mark.parametrize("store", ["sqlite", "milvus", "milvus://", "milvus://host:port"])
def test_stores_that_do_not_exist(store: str, xquad_copy: Path) -> None:
    with pytest.raises(SettingsError, match="milvus://"):
        copy_to_store(xquad_copy, store)
    with pytest.raises(SettingsError):
        IndexSettings(store=store)


@pytest.mark.parametrize("store", ["exact", "hnsw"])
def test_threads_find_the_same(store: str, xquad_copy: Path, muse: MuseEncoder) -> None:
    copy_to_store(xquad_copy, store)
    with Index.open(xquad_copy, muse) as index:
        expected = ids(index)
        wrong: list[object] = []

        def ask() -> None:
            try:
                wrong.extend(found for _ in range(5) if (found := ids(index)) != expected)
            except Exception as error:
                wrong.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_exact_passages_of_xquad(xquad: Corpus, xquad_folder: Path, muse: MuseEncoder) -> None:
    passages = list(xquad.passage_by_id.values())
    scores = muse.encode(QUESTIONS) @ muse.encode([passage.text for passage in passages]).T
    best = [passages[row].id for row in scores.argmax(axis=1)]
    with Index.open(xquad_folder, muse) as index:
        assert [found[0] for found in ids(index)] == best
