"""An index of a million real texts: how fast, how exact, how large, and against what.

    python bench/search.py --texts 1000000 --folder runs/search-bench --record results/search.json

The texts are distinct sentences and paragraphs of the parallel corpora (both sides, no word lists),
with XQuAD's 240 English passages among them; the questions are XQuAD's train and dev questions in
all languages. The first part encodes the texts, writes the index and its other stores. The second
part measures, each system in a process of its own:

- recall@10 against brute force with float32 vectors, and the time of a question alone and of 64 at
  a time;
- exact search with 8-bit vectors and faiss Flat by turns in one process, the same threads on both
  sides;
- indexing against the encoder alone, by turns, on the same texts;
- peers: faiss Flat, sentence-transformers' ``semantic_search``, and a Milvus server
  (``CLRELKT_MILVUS_SERVER`` names its program; without one that row is missing).

Each part says how long it will take. A run that is stopped goes on where it was; what is measured
stays in ``measured-*.json`` in the folder until those are removed. ``--quick`` is a smoke run on
4,000 texts: its figures mean little.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clrelkt.corpora import data_root, load_corpus, split_corpus
from clrelkt.encoders import MuseEncoder, load_encoder
from clrelkt.errors import ClrelktError, DataError
from clrelkt.files import write_json
from clrelkt.progress import progress_bar
from clrelkt.search import Index, IndexDocument, IndexSettings
from clrelkt.search.changes import copy_to_store
from clrelkt.search.generations import IndexFolder
from clrelkt.search.snapshot import Snapshot
from clrelkt.search.stores import ExactStore, open_store
from clrelkt.search.vectors import VectorBlock
from clrelkt.training.environment import describe_environment

KINDS = ("sentences", "docs", "ui_docs_po")
K = 10
CHUNK = 8_192
QUESTIONS = 512
BUILT = 40_000
"""Texts that are indexed and encoded by turns, at most."""

BATCH = 64
MILVUS_PORT = 19530
GROWTH = {"exact": 1.0, "hnsw": 1.2, "ivf": 1.25}
"""Stores, and the power of the number of texts that the time to write them grows by, roughly."""

PILOT = 20_000
MINUTES = {
    "float16": 2.0,
    "int8 against Flat": 4.0,
    "hnsw": 0.5,
    "ivf": 0.5,
    "semantic_search": 4.0,
    "milvus": 20.0,
}
"""What measuring a system takes at a million texts on two cores, roughly and at most."""

SHARE = "share of the encoder's speed"
Search = Callable[[np.ndarray], np.ndarray]
"""Questions (n, dimension) to rows (n, K)."""


@dataclass(frozen=True, slots=True)
class Work:
    """The files that the parts of this script share."""

    folder: Path
    texts: int

    @property
    def text_file(self) -> Path:
        """The texts, a JSON object a line."""
        return self.folder / f"texts-{self.texts}.jsonl"

    @property
    def vector_file(self) -> Path:
        """Their vectors, float32."""
        return self.folder / f"vectors-{self.texts}.f32"

    @property
    def question_file(self) -> Path:
        """The questions' vectors, and the nearest texts."""
        return self.folder / f"questions-{self.texts}.npz"

    def seconds_file(self, store: str) -> Path:
        """How long writing an index took."""
        return self.folder / f"measured-{self.texts}-seconds-{store}.json"

    def index(self, store: str) -> Path:
        """The folder of the index in a store."""
        return self.folder / f"index-{self.texts}-{store}"

    def read_texts(self) -> list[str]:
        """Return the texts."""
        with self.text_file.open(encoding="utf-8") as file:
            return [json.loads(line)["text"] for line in file]

    def vectors(self) -> np.ndarray:
        """Map the vectors, shape (texts, 512)."""
        return np.memmap(self.vector_file, np.float32, "r").reshape(-1, 512)


class StoredEncoder:
    """mUSE, with the vectors of the texts read from a file."""

    def __init__(self, encoder: MuseEncoder, texts: Sequence[str], vectors: np.ndarray) -> None:
        self._encoder = encoder
        self.texts = texts
        self._row = {text: row for row, text in enumerate(texts)}
        self._vectors = vectors
        self.name, self.weights = encoder.name, encoder.weights
        self.dimension, self.languages = encoder.dimension, encoder.languages

    def encode(
        self, texts: Sequence[str], kind: Any = "passage", *, progress: bool = False
    ) -> np.ndarray:
        """Return vectors from the file; of texts that are not there, the encoder's."""
        rows = [self._row.get(text, -1) for text in texts]
        if min(rows) < 0:
            return self._encoder.encode(texts, kind)
        return np.array(self._vectors[rows])


def real_texts(count: int) -> Iterator[str]:
    """Yield XQuAD's passages, and distinct texts of the parallel corpora in a random order."""
    passages = [passage.text for passage in load_corpus("xquad").passage_by_id.values()]
    found = dict.fromkeys(passages)
    for path in sorted((data_root() / "parallel").glob("*/*.tsv.gz")):
        if path.name.removesuffix(".tsv.gz") not in KINDS:
            continue
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                found.update((text.strip(), None) for text in line.split("\t")[:2] if text.strip())
    others = list(found)[len(passages) :]
    random.Random(0).shuffle(others)
    if len(found) < count:
        raise DataError(f"the parallel corpora here have {len(found)} distinct texts, not {count}")
    yield from passages
    yield from others[: count - len(passages)]


def write_texts(work: Work) -> None:
    if work.text_file.is_file():
        return
    lines = (json.dumps({"text": text}, ensure_ascii=False) for text in real_texts(work.texts))
    temporary = work.text_file.with_suffix(".part")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(work.text_file)


def write_vectors(work: Work, encoder: MuseEncoder, texts: Sequence[str]) -> None:
    """Encode the texts, in chunks; those that are in the file already are not encoded again."""
    width = encoder.dimension * 4
    with work.vector_file.open("ab") as file:
        done = file.tell() // width // CHUNK * CHUNK if file.tell() < len(texts) * width else 0
        if file.tell() == len(texts) * width:
            return
        file.truncate(done * width)
        with progress_bar("encoding", total=len(texts) - done, unit="texts") as advance:
            for start in range(done, len(texts), CHUNK):
                chunk = texts[start : start + CHUNK]
                began = time.monotonic()
                file.write(encoder.encode(chunk).tobytes())
                file.flush()
                rate = len(chunk) / (time.monotonic() - began)
                if start == done:
                    tell(f"encoding, {rate:,.0f} texts/s", (len(texts) - done) / rate)
                advance(len(chunk))


def one_passage_each(texts: Sequence[str]) -> Iterator[IndexDocument]:
    # Whatever its length.
    for row, text in enumerate(texts):
        yield IndexDocument(str(row), language="en", passages=((str(row), text),))


def write_indexes(work: Work, encoder: MuseEncoder, texts: Sequence[str]) -> dict[str, float]:
    """Write the index and its copies with faiss; return the seconds that each took.

    Those of an index that was begun before this run are not known.
    """
    missing = [store for store in GROWTH if not is_written(work, store)]
    if missing and work.texts >= 5 * PILOT:
        tell_expected(work, missing, encoder, texts)
    for store in missing:
        fresh = not work.index(store).exists()
        began = time.monotonic()
        write_index(work, store, StoredEncoder(encoder, texts, work.vectors()))
        if fresh:
            write_json(work.seconds_file(store), time.monotonic() - began)
    known = [store for store in GROWTH if work.seconds_file(store).is_file()]
    return {store: json.loads(work.seconds_file(store).read_text("utf-8")) for store in known}


def is_written(work: Work, store: str) -> bool:
    folder = work.index(store)
    return folder.is_dir() and IndexFolder(folder).newest() is not None


def write_index(work: Work, store: str, encoder: StoredEncoder, *, progress: bool = True) -> None:
    exact, folder = work.index("exact"), work.index(store)
    if store == "exact":
        settings = IndexSettings(precision="int8", sentences=False, words=False)
        documents = one_passage_each(encoder.texts)
        Index.build(encoder, documents, exact, settings=settings, progress=progress).close()
        return
    temporary = folder.with_suffix(".part")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(exact, temporary, copy_function=os.link)
    copy_to_store(temporary, store, progress=progress)
    temporary.replace(folder)


def tell_expected(
    work: Work, stores: Sequence[str], encoder: MuseEncoder, texts: Sequence[str]
) -> None:
    """Say how long the indexes will take, from indexes of a few of the texts."""
    few = StoredEncoder(encoder, texts[:PILOT], work.vectors()[:PILOT])
    pilot = Work(work.folder / "pilot", PILOT)
    shutil.rmtree(pilot.folder, ignore_errors=True)
    pilot.folder.mkdir()
    for store in GROWTH:
        began = time.monotonic()
        write_index(pilot, store, few, progress=False)
        seconds = (time.monotonic() - began) * (work.texts / PILOT) ** GROWTH[store]
        if store in stores:
            tell(f"writing the index, {store}", seconds)
    shutil.rmtree(pilot.folder)


def tell(part: str, seconds: float) -> None:
    print(f"{part}: about {seconds / 60:,.1f} minutes", file=sys.stderr)


def write_questions(work: Work, encoder: MuseEncoder) -> None:
    """Choose questions, and find the nearest texts of each by brute force in float32."""
    if work.question_file.is_file():
        return
    splits = split_corpus(load_corpus("xquad"), seed=0)
    asked = [q.text for part in (splits.train, splits.dev) for q in part.questions]
    questions = encoder.encode(random.Random(0).sample(asked, QUESTIONS), "question")
    vectors, rows, scores = work.vectors(), np.empty((QUESTIONS, 0), int), None
    began = time.monotonic()
    for start in range(0, len(vectors), 65_536):
        part = questions @ np.array(vectors[start : start + 65_536]).T
        scores = part if scores is None else np.concatenate((scores, part), 1)
        numbers = np.tile(np.arange(start, start + part.shape[1]), (QUESTIONS, 1))
        rows = np.concatenate((rows, numbers), 1)
        best = torch.from_numpy(scores).topk(K).indices.numpy()
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
        if start == 0:
            tell("brute force", (time.monotonic() - began) * len(vectors) / 65_536)
    temporary = work.question_file.with_suffix(".part.npz")
    assert scores is not None
    np.savez(temporary, questions=questions, rows=rows, scores=scores)
    temporary.replace(work.question_file)


def build_ratio(encoder: MuseEncoder, texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """Index a sample as anyone would, and encode the same passages and sentences, by turns."""
    sample = [IndexDocument(str(n), text, language="en") for n, text in enumerate(texts)]
    encoded: list[str] = []

    class Listening(StoredEncoder):
        def encode(
            self, texts: Sequence[str], kind: Any = "passage", *, progress: bool = False
        ) -> np.ndarray:
            encoded.extend(texts)
            return encoder.encode(texts, kind)

        tokenize = encoder.tokenize

    with tempfile.TemporaryDirectory() as folder:
        listening = Listening(encoder, (), np.empty((0, 512), np.float32))
        began = time.perf_counter()
        Index.build(listening, sample, Path(folder) / "first").close()
        tell("indexing against encoding", 2 * rounds * (time.perf_counter() - began))
        alone, whole = [], []
        for number in range(rounds):
            began = time.perf_counter()
            for start in range(0, len(encoded), CHUNK):
                encoder.encode(encoded[start : start + CHUNK])
            alone.append(time.perf_counter() - began)
            began = time.perf_counter()
            Index.build(encoder, sample, Path(folder) / str(number)).close()
            whole.append(time.perf_counter() - began)
    shares = [a / w for a, w in zip(alone, whole, strict=True)]
    return {
        "texts": len(sample),
        "texts encoded, sentences among them": len(encoded),
        "encoder alone, s": alone,
        "index, s": whole,
        SHARE: statistics.median(shares),
    }


def recall(
    found: np.ndarray, questions: np.ndarray, truth: np.ndarray, vectors: np.ndarray
) -> float:
    """Return the share of the K nearest that was found; a text as near as the K-th counts."""
    right = 0
    for question, rows, scores in zip(questions, found, truth, strict=True):
        own = np.array(vectors[rows[rows >= 0]]) @ question
        right += min(K, int((own >= scores[-1] - 1e-6).sum()))
    return right / (len(questions) * K)


def timings(search: Search, questions: np.ndarray, alone: int) -> dict[str, float]:
    """Return milliseconds a question: asked alone (median), and 64 at a time."""
    search(questions[:BATCH])
    single = []
    for number in range(alone):
        began = time.perf_counter()
        search(questions[number : number + 1])
        single.append(time.perf_counter() - began)
    batches = []
    for start in range(0, len(questions) - BATCH + 1, BATCH):
        began = time.perf_counter()
        search(questions[start : start + BATCH])
        batches.append((time.perf_counter() - began) / BATCH)
    return {
        "ms alone": 1e3 * statistics.median(single),
        "ms of 64": 1e3 * statistics.median(batches),
    }


def memory() -> dict[str, float]:
    """Return megabytes of this process: all that is resident, and what is not mapped files."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines()
    )
    return {
        "MB resident": int(fields["RssAnon"].split()[0]) / 1e3
        + int(fields["RssFile"].split()[0]) / 1e3,
        "MB not mapped": int(fields["RssAnon"].split()[0]) / 1e3,
    }


def open_ours(work: Work, store: str) -> tuple[Search, Snapshot]:
    folder = IndexFolder(work.index(store))
    snapshot = Snapshot.open(folder)
    generation = snapshot.generation
    segments = {int(segment.name): segment.block for segment in snapshot.segments}
    file = folder.stores / generation.store_file if generation.store_file else None
    opened = open_store(generation.store, file, snapshot.description.id, segments)
    return (lambda questions: opened.search(questions, K).rows), snapshot


def measure_system(work: Work, system: str, threads: int, alone: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    stored = np.load(work.question_file)
    questions, truth = stored["questions"], stored["scores"]
    before = memory()["MB not mapped"]
    found: dict[str, Any] = {}

    def row(search: Search) -> dict[str, Any]:
        times = timings(search, questions, alone)
        used = memory()
        starts = range(0, QUESTIONS, BATCH)
        near = np.concatenate([search(questions[start : start + BATCH]) for start in starts])
        used["MB not mapped"] -= before
        return {"recall@10": recall(near, questions, truth, work.vectors())} | times | used

    if system == "float16":
        _, snapshot = open_ours(work, "exact")
        store = ExactStore([VectorBlock(segment.block.halves) for segment in snapshot.segments])
        found["clrelkt exact, float16"] = row(lambda asked: store.search(asked, K).rows)
    elif system == "int8 against Flat":
        found = int8_and_flat(work, questions, row, threads, alone)
    elif system in ("hnsw", "ivf"):
        import faiss

        faiss.omp_set_num_threads(threads)
        search, _ = open_ours(work, system)
        found[f"clrelkt {system} (faiss)"] = row(search)
    elif system == "semantic_search":
        found["sentence-transformers semantic_search"] = row(semantic_search(work))
    elif system == "milvus":
        with milvus_server() as store_name:
            folder = work.folder / f"index-{work.texts}-milvus"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(work.index("exact"), folder, copy_function=os.link)
            began = time.monotonic()
            copy_to_store(folder, store_name)
            seconds = time.monotonic() - began
            search, snapshot = open_ours(work, "milvus")
            found["Milvus 2.3.5, HNSW"] = row(search) | {"s to copy": seconds}
            shutil.rmtree(folder)
    return found


def int8_and_flat(
    work: Work,
    questions: np.ndarray,
    row: Callable[[Search], dict[str, Any]],
    threads: int,
    alone: int,
) -> dict[str, Any]:
    import faiss

    faiss.omp_set_num_threads(threads)
    ours, _ = open_ours(work, "exact")
    found = {"clrelkt exact, int8": row(ours)}
    flat = faiss.IndexFlatIP(questions.shape[1])
    for start in range(0, work.texts, CHUNK):
        flat.add(np.array(work.vectors()[start : start + CHUNK]))

    def peer(asked: np.ndarray) -> np.ndarray:
        return np.asarray(flat.search(asked, K)[1])

    found["faiss Flat, float32"] = row(peer)
    for label, size, rounds in (("alone", 1, alone), ("of 64", BATCH, QUESTIONS // BATCH)):
        ratios = []
        for number in range(rounds):
            part = questions[number * size : (number + 1) * size]
            seconds = []
            for search in (ours, peer):
                began = time.perf_counter()
                search(part)
                seconds.append(time.perf_counter() - began)
            ratios.append(seconds[1] / seconds[0])
        key = f"times as fast as faiss Flat, {label}"
        found["clrelkt exact, int8"][key] = statistics.median(ratios)
    return found


def semantic_search(work: Work) -> Search:
    from sentence_transformers.util import semantic_search

    vectors = torch.from_numpy(np.array(work.vectors()))

    def search(questions: np.ndarray) -> np.ndarray:
        hits = semantic_search(torch.from_numpy(questions), vectors, top_k=K)
        return np.array([[hit["corpus_id"] for hit in own] for own in hits])

    return search


@contextmanager
def milvus_server() -> Iterator[str]:
    """Run a Milvus server, and yield its address."""
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        program = os.environ["CLRELKT_MILVUS_SERVER"]
        command = [program, "--data", folder, "--proxy-port", str(MILVUS_PORT)]
        quiet = subprocess.DEVNULL
        server = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
        try:
            for attempt in range(240):
                try:
                    MilvusClient(uri=f"http://127.0.0.1:{MILVUS_PORT}", timeout=5).close()
                    break
                except MilvusException:
                    if attempt == 239:
                        raise DataError("the Milvus server did not start in time") from None
                    time.sleep(0.5)
            yield f"milvus://127.0.0.1:{MILVUS_PORT}"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def remembered(work: Work, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Measure, or return what was measured before a run was stopped."""
    path = work.folder / f"measured-{work.texts}-{name.replace(' ', '-')}.json"
    if not path.is_file():
        write_json(path, measure())
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def run_system(work: Work, system: str, threads: int) -> dict[str, Any]:
    tell(f"measuring {system}", 60 * MINUTES[system] * work.texts / 1e6)
    command = [sys.executable, __file__, "--system", system, "--folder", str(work.folder)]
    command += ["--texts", str(work.texts), "--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {system} failed")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_all(work: Work, arguments: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for system in MINUTES:
        if system == "milvus" and not os.environ.get("CLRELKT_MILVUS_SERVER"):
            print("milvus: left out, for CLRELKT_MILVUS_SERVER names no server", file=sys.stderr)
            continue
        found |= remembered(work, system, partial(run_system, work, system, arguments.threads))
    exact = found["clrelkt exact, int8"]
    for name in ("clrelkt hnsw (faiss)", "clrelkt ivf (faiss)"):
        for key in ("ms alone", "ms of 64"):
            label = key.removeprefix("ms ")
            found[name][f"times as fast as exact, {label}"] = exact[key] / found[name][key]
    return found


def print_rows(rows: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = ("recall@10", "ms alone", "ms of 64", "MB resident", "MB not mapped")
    table = Table(title="A question among the texts", title_justify="left")
    for name in ("system", *columns):
        table.add_column(name, justify="left" if name == "system" else "right")
    for name, row in rows.items():
        digits = (4, 2, 3, 0, 0)
        cells = (f"{row[key]:,.{n}f}" for key, n in zip(columns, digits, strict=True))
        table.add_row(name, *cells)
    console = Console(width=110, highlight=False)
    console.print(table)
    for name, row in rows.items():
        for key, value in row.items():
            if key not in columns:
                console.print(f"{name}: {key}: {value:,.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/search-bench"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--record", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="a smoke run on 4,000 texts")
    parser.add_argument("--system", choices=MINUTES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work = Work(arguments.folder, 4_000 if arguments.quick else arguments.texts)
    alone = 20 if work.texts < 100_000 else 50
    if arguments.system:
        print(json.dumps(measure_system(work, arguments.system, arguments.threads, alone)))
        return
    try:
        work.folder.mkdir(parents=True, exist_ok=True)
        write_texts(work)
        encoder = load_encoder("muse")
        assert isinstance(encoder, MuseEncoder)
        texts = work.read_texts()
        write_vectors(work, encoder, texts)
        seconds = write_indexes(work, encoder, texts)
        write_questions(work, encoder)
        sample = texts[240 : 240 + min(BUILT, work.texts // 4)]
        building = remembered(work, "build", lambda: build_ratio(encoder, sample, 3))
    except ClrelktError as error:
        sys.exit(f"error: {error}")
    del texts
    rows = measure_all(work, arguments)
    print_rows(rows)
    print(f"index build: {building[SHARE]:.1%} of the encoder's own speed")
    if arguments.record:
        command = f"python bench/search.py --texts {work.texts} --record {arguments.record}"
        write_json(
            arguments.record,
            {
                "format": 1,
                "kind": "search",
                "command": command,
                "texts": work.texts,
                "questions": QUESTIONS,
                "threads": arguments.threads,
                "systems": rows,
                "index build": building,
                "seconds to write": seconds,
                "environment": describe_environment(),
            },
        )


if __name__ == "__main__":
    main()
