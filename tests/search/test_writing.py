"""Indexes that are interrupted, killed, damaged, newer, or of another encoder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from clrelkt.encoders import MuseEncoder
from clrelkt.encoders.protocol import TextKind
from clrelkt.errors import DataError, SearchIndexError, StorageError
from clrelkt.search import Index, IndexDocument, IndexSettings
from clrelkt.search.changes import compact_index
from clrelkt.search.generations import IndexFolder
from clrelkt.search.writing import exclusive

SMALL = IndexSettings(segment_rows=4)
KILLS = Path(__file__).parents[2] / "bench" / "index_kills.py"


def documents(count: int, first: int = 0) -> Iterator[IndexDocument]:
    for number in range(first, first + count):
        text = f"Town {number} lies on a river. It has {number} bridges."
        yield IndexDocument(f"d{number}", text, language="en", metadata={"n": number})


class StoppedError(Exception):
    pass


def stopping(count: int) -> Iterator[IndexDocument]:
    yield from documents(count)
    raise StoppedError


def test_killed_updates_lose_nothing() -> None:
    command = [sys.executable, str(KILLS), "--kills", "2", "--documents", "40", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["lost"] == 0


def test_a_build_that_was_stopped_goes_on(muse: MuseEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    with pytest.raises(StoppedError):
        Index.build(muse, stopping(10), folder, settings=SMALL, source="s")
    with pytest.raises(SearchIndexError, match="unfinished"):
        Index.open(folder, muse)
    pending = IndexFolder(folder).read_pending()
    assert pending is not None
    assert pending["consumed"] == 8
    read: list[str] = []

    def counted() -> Iterator[IndexDocument]:
        for document in documents(12):
            read.append(document.id)
            yield document

    encoded: list[str] = []

    class Counting(MuseEncoder):
        def encode(self, texts, kind="passage", *, progress=False):  # type: ignore[no-untyped-def]
            encoded.extend(texts)
            return super().encode(texts, kind, progress=progress)

    encoder = Counting(muse.network, muse.tokenizer, muse.identity)
    with Index.build(encoder, counted(), folder, settings=SMALL, source="s") as index:
        assert [document.id for document in index.documents()] == [f"d{n}" for n in range(12)]
        assert len(read) == 12
        # Those that were in finished segments are not encoded again.
        assert not any(text.startswith("Town 3 ") for text in encoded)
        assert any(text.startswith("Town 9 ") for text in encoded)
        whole = Index.build(muse, documents(12), tmp_path / "whole", settings=SMALL)
        question = "Wie viele Brücken hat Town 7?"
        assert index.search(question) == whole.search(question)
        whole.close()


def test_an_update_that_was_killed_after_its_last_step_is_done(
    muse: MuseEncoder, tmp_path: Path
) -> None:
    folder = IndexFolder(tmp_path / "i")
    index = Index.build(muse, documents(3), folder.path)
    index.add(documents(2, 3), source="more")
    last = folder.newest()
    assert last is not None
    noted = {
        "kind": "add",
        "source": "more",
        "segments": [last.segments[-1].name],
        "consumed": 2,
        "last": "d4",
    }
    for again in ("add", "delete"):
        folder.write_pending(noted)
        if again == "add":
            assert index.add(documents(2, 3), source="more") == 2
            assert (len(index), index.version) == (5, 2)
        else:
            index.delete(["d3", "d4"])
            index.add(documents(2, 3), source="more")
            assert (len(index), index.version) == (5, 4)
        assert folder.read_pending() is None


def test_a_fault_of_the_encoder_loses_nothing_before_it(
    muse: MuseEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, asked = muse.encode, list[str]()

    def listening(texts: Sequence[str], kind: TextKind = "passage") -> np.ndarray:
        asked.extend(texts)
        return encode(texts, kind)

    def faulty(texts: Sequence[str], kind: TextKind = "passage") -> np.ndarray:
        vectors = encode(texts, kind)
        vectors[[text.startswith("Town 9") for text in texts]] = np.nan
        return vectors

    folder = IndexFolder(tmp_path / "i")
    with monkeypatch.context() as patch:
        patch.setattr(muse, "encode", faulty)
        with pytest.raises(DataError, match="gives no numbers for 'Town 9 lies"):
            Index.build(muse, documents(14), folder.path, settings=SMALL)
    pending = folder.read_pending()
    assert pending is not None
    assert (pending["consumed"], pending["last"]) == (8, "d7")
    with monkeypatch.context() as patch:
        patch.setattr(muse, "encode", listening)
        Index.build(muse, documents(14), folder.path, settings=SMALL)
    towns = [text for text in asked if text.startswith("Town")]
    assert not any(f"Town {number} " in text for text in towns for number in range(8))
    Index.build(muse, documents(14), tmp_path / "whole", settings=SMALL)
    for name in ("halves.bin", "sentences.bin", "owners.bin", "posting-rows.bin"):
        written = [
            [file.read_bytes() for file in sorted(place.glob(f"segments/*/{name}"))]
            for place in (folder.path, tmp_path / "whole")
        ]
        assert written[0] == written[1]
        assert len(written[0]) == 4


def test_a_source_that_has_changed_does_not_go_on(muse: MuseEncoder, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        Index.build(muse, stopping(10), tmp_path / "i", settings=SMALL)
    with pytest.raises(SearchIndexError, match=r"document 8 was 'd7' and is 'd8' now"):
        Index.build(muse, documents(10, 1), tmp_path / "i", settings=SMALL)
    with pytest.raises(SearchIndexError, match="begun here with another encoder or other settings"):
        Index.build(muse, documents(10), tmp_path / "i")


def test_ids_are_unique(muse: MuseEncoder, tmp_path: Path) -> None:
    twice = [*documents(6), *documents(1)]
    with pytest.raises(DataError, match="'d0' stands more than once"):
        Index.build(muse, twice, tmp_path / "twice", settings=SMALL)
    index = Index.build(muse, documents(6), tmp_path / "i", settings=SMALL)
    with pytest.raises(DataError, match=r"'d0' is in .* already"):
        index.add(twice[:1])
    with pytest.raises(DataError, match=r"no document 'x' \(nor 1 more\); nothing was deleted"):
        index.delete(["d1", "x", "y"])
    assert (len(index), index.version) == (6, 1)
    with pytest.raises(SearchIndexError, match="is an index already"):
        Index.build(muse, documents(1), tmp_path / "i", settings=SMALL)


def test_a_document_without_text_is_refused(muse: MuseEncoder, tmp_path: Path) -> None:
    for document, message in (
        (IndexDocument("x", " \n"), "'x' has no text"),
        (IndexDocument("", "text"), "without an id"),
        (IndexDocument("x", "\ud800"), "half of a surrogate pair"),
    ):
        with pytest.raises(DataError, match=message):
            Index.build(muse, [document], tmp_path / "i")


def test_compaction_changes_nothing_that_is_found(muse: MuseEncoder, tmp_path: Path) -> None:
    settings = IndexSettings(precision="int8", segment_rows=5)
    index = Index.build(muse, documents(20), tmp_path / "i", settings=settings)
    index.delete([f"d{number}" for number in range(0, 20, 3)])
    question = "Wie viele Brücken hat Town 8?"
    before = index.search(question, 20, hybrid=False)
    compact_index(tmp_path / "i")
    assert index.refresh()
    after = index.search(question, 20, hybrid=False)
    assert [hit.passage_id for hit in after] == [hit.passage_id for hit in before]
    assert [hit.highlights[0].start for hit in after] == [h.highlights[0].start for h in before]
    assert index.info()["segments"] == 2
    assert len(index) == 13


def test_two_writers_do_not_meet(muse: MuseEncoder, tmp_path: Path) -> None:
    index = Index.build(muse, documents(3), tmp_path / "i")
    with (
        exclusive(IndexFolder(tmp_path / "i")),
        pytest.raises(StorageError, match="another process is writing"),
    ):
        index.delete(["d1"])


def test_another_encoder_is_refused(
    muse: MuseEncoder, muse_8bit: MuseEncoder, tmp_path: Path
) -> None:
    Index.build(muse, documents(3), tmp_path / "i").close()
    with pytest.raises(
        SearchIndexError, match=r"made with encoder 'muse'.*'muse-8bit'.*are others"
    ):
        Index.open(tmp_path / "i", muse_8bit)
    Index.open(tmp_path / "i", "muse").close()
    description = tmp_path / "i/index.json"
    record = json.loads(description.read_text("utf-8"))
    record["encoder"]["name"] = str(tmp_path / "gone")
    description.write_text(json.dumps(record), "utf-8")
    with pytest.raises(SearchIndexError, match=r"gone.*cannot be loaded.*--encoder"):
        Index.open(tmp_path / "i")
    record["encoder"]["dimension"] = 768
    description.write_text(json.dumps(record), "utf-8")
    with pytest.raises(SearchIndexError, match=r"vectors of 768 numbers, but .* has 512"):
        Index.open(tmp_path / "i", muse)


def test_newer_and_damaged_indexes_are_refused(muse: MuseEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "i"
    Index.build(muse, documents(3), folder).close()
    halves = next(folder.glob("segments/*/halves.bin"))
    content = halves.read_bytes()
    for damage, message in ((content[:-1], "is damaged"), (content[:1024], "is damaged")):
        halves.write_bytes(damage)
        with pytest.raises(SearchIndexError, match=message):
            Index.open(folder, muse)
    halves.unlink()
    with pytest.raises(SearchIndexError, match=r"has no halves\.bin, which this format"):
        Index.open(folder, muse)
    record = json.loads((folder / "index.json").read_text("utf-8"))
    (folder / "index.json").write_text(json.dumps(record | {"format": 99}), "utf-8")
    with pytest.raises(SearchIndexError, match=r"format 99.*reads up to 1"):
        Index.open(folder, muse)
    with pytest.raises(SearchIndexError, match="is no index"):
        Index.open(tmp_path, muse)
    with pytest.raises(StorageError, match="is no index"):
        Index.build(muse, documents(1), tmp_path)
