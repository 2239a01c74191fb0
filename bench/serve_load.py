"""A real server under load, on loopback: XQuAD's index, mUSE, questions in twelve languages.

The clients are coroutines of another process, which send the next question as soon as the last is
answered. Four servers are there at once, and are loaded in turn, so that other work on the machine
meets all alike:

- ``batched``: as users run it, but no question's vector is remembered;
- ``alone``: the same, each question encoded and searched alone (``--max-batch 1``);
- ``idle encoder``: the same as ``batched``, with an encoder that does nothing;
- ``remembered``: the same as ``batched``, with the vectors of all questions remembered.

Then a soak: 64 clients, while the index is changed twice. Writes results/serve.json.

    python bench/serve_load.py [--quick] [--minutes 10] [--seconds 10] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clrelkt.search import Index

ROOT = Path(__file__).parent.parent
CLIENTS = (1, 16, 64)
VARIANTS = ("batched", "alone", "idle encoder", "remembered")


@dataclass(frozen=True)
class Load:
    """What a client process saw: latencies in seconds, statuses, index versions in order."""

    clients: int
    seconds: float
    latencies: list[float]
    statuses: dict[str, int]
    versions: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    processor_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    @property
    def failed(self) -> int:
        """Requests that were not answered with status 200."""
        return sum(count for status, count in self.statuses.items() if status != "200")

    def summary(self) -> dict[str, Any]:
        """Return rate and percentiles, times in milliseconds."""
        ordered = sorted(self.latencies)

        def at(share: float) -> float:
            if not ordered:
                return float("nan")
            return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

        return {
            "clients": self.clients,
            "requests": len(ordered),
            "requests_per_second": self.rate,
            "p50_ms": at(0.50),
            "p99_ms": at(0.99),
            "server_processor_ms": 1000 * self.processor_seconds / max(1, len(ordered)),
            "failed": self.failed,
        }


# The client process


class Client(asyncio.Protocol):
    """One connection that asks, waits for the answer, and asks again."""

    def __init__(self, load: _LoadRun) -> None:
        self.load = load
        self.done = asyncio.get_running_loop().create_future()
        self.buffer = bytearray()
        self.missing = -1

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        """Send the next question, or close when the time is up."""
        if time.perf_counter() >= self.load.end:
            self.transport.close()
            return
        self.began = time.perf_counter()
        self.transport.write(self.load.next_request())

    def data_received(self, data: bytes) -> None:
        """Gather an answer, and go on when it is whole."""
        self.buffer += data
        if self.missing < 0:
            head = self.buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            lower = bytes(self.buffer[:head]).lower()
            place = lower.index(b"content-length:") + 15
            length = int(lower[place:].split(b"\r\n", 1)[0])
            self.missing = head + 4 + length
        if len(self.buffer) >= self.missing:
            answer = bytes(self.buffer[: self.missing])
            self.buffer.clear()
            self.missing = -1
            self.load.answered(answer, time.perf_counter() - self.began)
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note a connection that was lost before the time was up."""
        if exc is not None or time.perf_counter() < self.load.end:
            self.load.lost(repr(exc))
        if not self.done.done():
            self.done.set_result(None)


class _LoadRun:
    def __init__(self, requests: Sequence[bytes], end: float) -> None:
        self.requests = requests
        self.end = end
        self.asked = 0
        self.latencies: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.versions: list[int] = []
        self.failures: list[str] = []

    def next_request(self) -> bytes:
        self.asked += 1
        return self.requests[self.asked % len(self.requests)]

    def answered(self, answer: bytes, seconds: float) -> None:
        status = answer[9:12].decode()
        self.statuses[status] += 1
        self.latencies.append(seconds)
        if status != "200":
            self.failures.append(answer[:400].decode(errors="replace"))
            return
        place = answer.index(b'"version":') + 10
        version = int(answer[place : place + 12].split(b",", 1)[0])
        if not self.versions or self.versions[-1] < version:
            self.versions.append(version)

    def lost(self, reason: str) -> None:
        self.statuses["lost"] += 1
        self.failures.append(reason)


async def ask_for(port: int, clients: int, seconds: float, requests: Sequence[bytes]) -> Load:
    """Load a server from this process."""
    began = time.perf_counter()
    run = _LoadRun(requests, began + seconds)
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(lambda: Client(run), "127.0.0.1", port))[1]
        for _ in range(clients)
    ]
    await asyncio.gather(*(client.done for client in opened))
    taken = time.perf_counter() - began
    return Load(clients, taken, run.latencies, dict(run.statuses), run.versions, run.failures[:20])


def request_bytes(question: str) -> bytes:
    """Return the request that asks a question."""
    body = json.dumps({"question": question, "k": 10}, ensure_ascii=False).encode()
    head = (
        "POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def client_main(port: int, clients: int, seconds: float, questions: Path) -> None:
    """Run as the client process; write what was seen beside the questions."""
    import uvloop

    requests = [request_bytes(text) for text in json.loads(questions.read_text("utf-8"))]
    load = uvloop.run(ask_for(port, clients, seconds, requests))
    # Not to standard output: its pipe is uvloop's by now, and has lost the end of a long line.
    seen_file(questions, port).write_text(json.dumps(asdict(load)), "utf-8")


def seen_file(questions: Path, port: int) -> Path:
    """Return where a client process writes what it saw."""
    return questions.with_name(f"seen-{port}.json")


# The server process


def server_main(variant: str, index: Path, threads: int) -> None:
    """Run as a server process until told to end."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import numpy as np
    import torch

    from clrelkt.encoders import load_encoder
    from clrelkt.search import Index
    from clrelkt.server import Address, ServerSettings, serve
    from clrelkt.server.questions import question_encoder
    from clrelkt.server.service import SearchService

    torch.set_num_threads(threads)
    opened = Index.open(index, load_encoder("muse"))
    encode = question_encoder(opened)
    if variant == "idle encoder":
        vector = opened.encode_questions(["Who wrote this?"])[0]

        def encode_nothing(questions: Sequence[str]) -> np.ndarray:
            return np.broadcast_to(vector, (len(questions), len(vector)))

        encode = encode_nothing
    settings = ServerSettings(
        max_batch=1 if variant == "alone" else 64,
        remembered=20_000 if variant == "remembered" else 0,
        hosts=("localhost",),
        max_per_client=256,
    )
    serve(SearchService(opened, settings, encode=encode), Address(port=0))


# The measuring process


@dataclass(frozen=True)
class Target:
    """A server that runs."""

    pid: int
    port: int

    def processor_seconds(self) -> float:
        """Return the processor time that it has taken so far; 0 where the system does not tell."""
        path = Path(f"/proc/{self.pid}/stat")
        if not path.exists():
            return 0.0
        fields = path.read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def server(variant: str, index: Path, threads: int) -> Iterator[Target]:
    """Start a server process; it must end well."""
    command = [sys.executable, __file__, "--serve", variant, "--index", str(index)]
    process = subprocess.Popen(
        [*command, "--threads", str(threads)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield Target(process.pid, int(line.rsplit(":", 1)[1].strip().rstrip("/")))
    finally:
        process.terminate()
        if process.wait(60) != 0:
            sys.exit(f"the server {variant!r} ended with status {process.returncode}")


def load_from_elsewhere(target: Target, clients: int, seconds: float, questions: Path) -> Load:
    """Load a server from another process."""
    command = [sys.executable, __file__, "--client", str(target.port), str(clients), str(seconds)]
    before = target.processor_seconds()
    done = subprocess.run([*command, str(questions)])
    taken = target.processor_seconds() - before
    if done.returncode:
        sys.exit(f"the client ended with status {done.returncode}")
    seen = json.loads(seen_file(questions, target.port).read_text("utf-8"))
    return replace(Load(**seen), processor_seconds=taken)


def soak(index: Path, questions: Path, minutes: float, threads: int) -> dict[str, Any]:
    """Load a server for some minutes, and change its index twice meanwhile."""
    from clrelkt.encoders import load_encoder
    from clrelkt.search import Index

    writer = Index.open(index, load_encoder("muse"))
    change = threading.Thread(target=_change_twice, args=(writer, 20 * minutes))
    with server("batched", index, threads) as target:
        change.start()
        load = load_from_elsewhere(target, 64, 60 * minutes, questions)
        change.join()
    return load.summary() | {
        "minutes": minutes,
        "versions": load.versions,
        "statuses": load.statuses,
        "failures": load.failures,
    }


def _change_twice(writer: Index, pause: float) -> None:
    from clrelkt.search import IndexDocument

    time.sleep(pause)
    writer.add([IndexDocument("soak", "A document that comes and goes.", language="en")])
    time.sleep(pause)
    writer.delete(["soak"])


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run everything; the index and the questions are written to ``folder``."""
    from clrelkt.corpora import load_corpus
    from clrelkt.encoders import load_encoder
    from clrelkt.search import Index
    from clrelkt.training.environment import describe_environment

    corpus = load_corpus("bundled" if arguments.quick else "xquad")
    index, questions = folder / "index", folder / "questions.json"
    Index.build(load_encoder("muse"), corpus.documents, index, language="en").close()
    texts = sorted({question.text for question in corpus.questions})
    random.Random(0).shuffle(texts)
    questions.write_text(json.dumps(texts), "utf-8")

    loads: dict[tuple[str, int], list[Load]] = {}
    with ExitStack() as stack:
        targets = {v: stack.enter_context(server(v, index, arguments.threads)) for v in VARIANTS}
        for variant, target in targets.items():  # Until caches are filled and pages are read.
            warm = len(texts) / 400 if variant == "remembered" else 2
            load_from_elsewhere(target, 64, min(warm, arguments.seconds * 3), questions)
        for number in range(arguments.rounds):
            for clients in CLIENTS:
                for variant, target in targets.items():
                    load = load_from_elsewhere(target, clients, arguments.seconds, questions)
                    loads.setdefault((variant, clients), []).append(load)
                    print(
                        f"round {number + 1}, {clients} clients, {variant}: {load.rate:,.0f} "
                        "requests/s",
                        file=sys.stderr,
                    )
    soaked = soak(index, questions, arguments.minutes, arguments.threads)
    rate = {key: statistics.median(load.rate for load in own) for key, own in loads.items()}
    return {
        "kind": "serve",
        "command": " ".join(["python bench/serve_load.py", *sys.argv[1:]]),
        "corpus": corpus.name,
        "encoder": "muse",
        "questions": len(texts),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "loads": {
            variant: [middle(loads[variant, clients]).summary() for clients in CLIENTS]
            for variant in VARIANTS
        },
        "ratios": {
            "batched to alone, 64 clients": rate["batched", 64] / rate["alone", 64],
            "batched to idle encoder, 64 clients": rate["batched", 64] / rate["idle encoder", 64],
            "remembered to idle encoder, 64 clients": rate["remembered", 64]
            / rate["idle encoder", 64],
        },
        "soak": soaked,
        "environment": describe_environment(),
    }


def middle(loads: Sequence[Load]) -> Load:
    """Return the load with the middle rate."""
    return sorted(loads, key=lambda load: load.rate)[len(loads) // 2]


def show(record: dict[str, Any]) -> None:
    """Print the record as tables."""
    print(
        f"{'server':<14}{'clients':>8}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'processor ms':>14}{'failed':>8}"
    )
    for variant, rows in record["loads"].items():
        for row in rows:
            print(
                f"{variant:<14}{row['clients']:>8}{row['requests_per_second']:>12,.0f}"
                f"{row['p50_ms']:>9.1f}{row['p99_ms']:>9.1f}"
                f"{row['server_processor_ms']:>14.2f}{row['failed']:>8}"
            )
    targets = {"batched to alone, 64 clients": 2.0, "batched to idle encoder, 64 clients": 0.8}
    for name, ratio in record["ratios"].items():
        target = targets.get(name)
        told = ""
        if target is not None:
            told = f" (target {target:g}, {'reached' if ratio >= target else 'missed'})"
        print(f"{name}: {ratio:.2f}{told}")
    soaked = record["soak"]
    print(
        f"soak: {soaked['minutes']:g} minutes, {soaked['requests']:,} requests, "
        f"{soaked['failed']} failed, versions {soaked['versions']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run; writes no record")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the soak")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="that torch computes with")
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "serve.json")
    parser.add_argument("--serve", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--client", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        port, clients, seconds, questions = arguments.client
        client_main(int(port), int(clients), float(seconds), Path(questions))
        return
    if arguments.serve:
        server_main(arguments.serve, arguments.index, arguments.threads)
        return
    if arguments.quick:
        arguments.seconds, arguments.rounds, arguments.minutes = 1.0, 1, 0.1
    with tempfile.TemporaryDirectory() as folder:
        record = measure(arguments, Path(folder))
    if not arguments.quick:
        from clrelkt.files import write_json

        write_json(arguments.output, record)
    if arguments.json:
        print(json.dumps(record))
    else:
        show(record)


if __name__ == "__main__":
    main()
