"""A real server, asked over HTTP."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from tests.server.conftest import DOCUMENTS, Served, running

from clrelkt.encoders import MuseEncoder
from clrelkt.reader import Reader
from clrelkt.search import Index, IndexDocument
from clrelkt.server import ServerSettings

QUESTION = "¿Quién descubrió la penicilina?"


def test_a_search_finds_what_the_index_finds(served: Served, index: Index) -> None:
    answer = served.get("/search", question=QUESTION, k=3)
    assert answer.status == 200
    found = answer.json
    assert found["question"] == QUESTION
    assert found["version"] == index.version
    expected = index.search(QUESTION, k=3, by="document")
    assert [hit["passage_id"] for hit in found["hits"]] == [hit.passage_id for hit in expected]
    first = found["hits"][0]
    assert first["score"] == pytest.approx(expected[0].score, abs=1e-5)
    assert first["metadata"] == {"year": 1928, "field": "medicine"}
    (sentence,) = first["highlights"]
    assert (
        first["text"][sentence["start"] : sentence["stop"]] == "He discovered penicillin in 1928."
    )
    assert first["answer"] is None


def test_post_and_get_find_the_same(served: Served) -> None:
    values = {"question": "bees", "k": 4, "by": "passage", "languages": ["en"]}
    by_body = served.post(values).json["hits"]
    assert by_body == served.get("/search", **values).json["hits"]
    assert {hit["passage_id"] for hit in by_body} >= {"b-1", "b-2"}


def test_filters(served: Served) -> None:
    def ids(**filters: object) -> list[str]:
        return [
            hit["document_id"] for hit in served.post({"question": "?", **filters}).json["hits"]
        ]

    assert set(ids(languages=["de", "th"])) == {"bridge", "elephant"}
    assert ids(where={"year": 1928}) == ["fleming"]
    assert ids(where={"year": "1928"}) == []
    assert len(ids(k=2)) == 2


def test_documents(served: Served) -> None:
    everything = served.get("/documents").json
    assert everything["documents"] == len(DOCUMENTS)
    assert [entry["id"] for entry in everything["shown"]] == [d.id for d in DOCUMENTS]
    assert everything["shown"][-1]["passages"] == 2
    some = served.get("/documents", first=1, count=2).json
    assert [entry["id"] for entry in some["shown"]] == [d.id for d in DOCUMENTS[1:3]]
    for document in DOCUMENTS:
        found = served.get(f"/documents/{quote(document.id, safe='')}").json
        assert (found["id"], found["title"]) == (document.id, document.title)
        if document.passages is None:
            assert " ".join(p["text"] for p in found["passages"]).split() == document.text.split()


@pytest.mark.parametrize(
    ("method", "target", "status", "reason"),
    [
        ("GET", "/search?question=", 422, "invalid"),
        ("GET", "/search?question=%ff", 400, "not_utf8"),
        ("GET", "/documents/none", 404, "not_found"),
        ("GET", "/documents/", 404, "not_found"),
        ("GET", "/other", 404, "not_found"),
        ("GET", "/../../etc/passwd", 404, "not_found"),
        ("GET", "/page/index.html", 404, "not_found"),
        ("DELETE", "/search", 405, "wrong_method"),
        ("POST", "/documents", 405, "wrong_method"),
        ("GET", "/search?question=" + "a" * 20_000, 414, "too_large"),
    ],
)
def test_what_cannot_be_is_told(
    served: Served, method: str, target: str, status: int, reason: str
) -> None:
    answer = served.ask(method, target)
    assert answer.status == status
    assert answer.json["error"] == reason
    assert len(answer.json["message"]) > 10


def test_bodies_are_bounded_and_are_json(served: Served) -> None:
    as_json = {"content-type": "application/json"}
    long = json.dumps({"question": "a" * 70_000}).encode()
    answer = served.ask("POST", "/search", long, as_json)
    assert (answer.status, answer.json["error"]) == (413, "too_large")
    answer = served.ask("POST", "/search", b"question=a", {"content-type": "text/plain"})
    assert (answer.status, answer.json["error"]) == (415, "wrong_type")
    answer = served.ask("POST", "/search", b"{", as_json)
    assert (answer.status, answer.json["error"]) == (400, "not_json")


def test_a_body_without_a_length_is_bounded_too(served: Served) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"a" * 1000

    connection = served.connect()
    try:
        headers = {"content-type": "application/json"}
        connection.request("POST", "/search", endless(), headers, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # The server has closed while the client still wrote; it took no more.
    finally:
        connection.close()


def test_a_head_that_is_too_long_ends_the_connection(served: Served) -> None:
    answer = served.ask("GET", "/healthz", None, {"x-long": "a" * 70_000})
    assert answer.status == 400


def test_bytes_that_are_no_http_are_refused(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
        sock.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 400")


def test_a_client_that_waits_to_be_told_to_go_on_is_told(served: Served) -> None:
    body = json.dumps({"question": QUESTION, "k": 1}).encode()
    head = f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
        for _ in range(2):
            sock.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
            assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(body)
            answer = b""
            while not answer.endswith(b"]}"):
                answer += sock.recv(10_000)
            first, _, content = answer.partition(b"\r\n\r\n")
            assert first.startswith(b"HTTP/1.1 200 OK\r\n")
            assert len(json.loads(content)["hits"]) == 1


def test_only_known_names_are_answered(index: Index) -> None:
    settings = ServerSettings(hosts=("localhost", "127.0.0.1", "[::1]"))
    with running(index, settings) as served:
        for host, status in (
            ("localhost", 200),
            ("LOCALHOST:80", 200),
            ("[::1]:8080", 200),
            ("evil.example", 421),
            ("localhost.evil.example", 421),
            ("", 421),
        ):
            assert served.ask("GET", "/healthz", None, {"host": host}).status == status, host


def test_answers_may_not_be_used_by_other_pages(served: Served) -> None:
    for path in ("/", "/search?question=a", "/nothing", "/page.js"):
        headers = served.get(path).headers
        assert "access-control-allow-origin" not in headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_health_and_metrics(index: Index) -> None:
    with running(index) as served:
        found = served.get("/healthz").json
        assert (found["status"], found["version"]) == ("ok", index.version)
        assert (found["documents"], found["reader"]) == (len(DOCUMENTS), None)
        assert found["languages"] == index.languages()
        for _ in range(3):
            assert served.get("/search", question="bees").status == 200
        served.get("/search")
        served.get("/etc/passwd")
        answer = served.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = set(answer.body.decode().splitlines())
        assert 'clrelkt_requests_total{path="/search",status="200"} 3.0' in lines
        assert 'clrelkt_requests_total{path="/search",status="422"} 1.0' in lines
        assert 'clrelkt_requests_total{path="other",status="404"} 1.0' in lines
        assert 'clrelkt_request_seconds_count{path="/search"} 4.0' in lines
        assert "clrelkt_batch_questions_count 3.0" in lines
        assert "clrelkt_questions_encoded 1.0" in lines
        assert "clrelkt_questions_remembered 2.0" in lines
        assert f"clrelkt_index_documents {len(DOCUMENTS)}.0" in lines
        assert "clrelkt_requests_under_way 1.0" in lines


class Slow:
    """Holds an index's encoding back until it may go on."""

    def __init__(self, index: Index) -> None:
        self.go = threading.Event()
        self.busy = threading.Event()
        self.batches: list[int] = []
        self._encode = index.encode_questions

    def __call__(self, questions: Sequence[str]) -> np.ndarray:
        self.batches.append(len(questions))
        self.busy.set()
        assert self.go.wait(20)
        return self._encode(questions)


@pytest.fixture
def slow(muse: MuseEncoder, index_folder: Path) -> Iterator[tuple[Index, Slow]]:
    own = Index.open(index_folder, muse)
    encode = Slow(own)
    own.encode_questions = encode  # type: ignore[method-assign]
    yield own, encode
    encode.go.set()


def wait_until(reached: object) -> None:
    assert callable(reached)
    end = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_requests_that_wait_are_encoded_together(slow: tuple[Index, Slow]) -> None:
    own, encode = slow
    with running(own) as served, ThreadPoolExecutor(9) as pool:
        first = pool.submit(served.get, "/search", question="first")
        assert encode.busy.wait(20)
        others = [
            pool.submit(served.get, "/search", question=f"number {n}", k=1 + n % 2)
            for n in range(8)
        ]
        wait_until(lambda: served.service._searcher and len(served.service._searcher) == 8)
        encode.go.set()
        assert first.result().status == 200
        for number, other in enumerate(others):
            found = other.result().json
            assert found["question"] == f"number {number}"
            assert len(found["hits"]) == 1 + number % 2
        assert encode.batches == [1, 8]


def test_a_full_queue_says_when_to_come_again(slow: tuple[Index, Slow]) -> None:
    own, encode = slow
    with running(own, ServerSettings(max_waiting=2)) as served, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(served.get, "/search", question="first")]
        assert encode.busy.wait(20)
        waiting += [pool.submit(served.get, "/search", question=f"{n}") for n in range(2)]
        wait_until(lambda: served.service._searcher and len(served.service._searcher) == 2)
        refused = served.get("/search", question="one too many")
        assert (refused.status, refused.json["error"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert served.get("/healthz").status == 200
        encode.go.set()
        assert [future.result().status for future in waiting] == [200, 200, 200]
        assert served.get("/search", question="now there is room").status == 200


def test_one_client_cannot_take_all(slow: tuple[Index, Slow]) -> None:
    own, encode = slow
    with running(own, ServerSettings(max_per_client=2)) as served, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(served.get, "/search", question=f"{n}") for n in range(2)]
        wait_until(lambda: b"under_way 3.0" in served.get("/metrics").body)
        refused = served.get("/search", question="one too many")
        assert (refused.status, refused.json["error"]) == (429, "too_many_requests")
        assert refused.headers["retry-after"] == "1"
        encode.go.set()
        assert [future.result().status for future in waiting] == [200, 200]
        assert served.get("/search", question="again").status == 200


def test_what_is_under_way_is_finished_at_the_end(slow: tuple[Index, Slow]) -> None:
    own, encode = slow
    with running(own) as served, ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(served.get, "/search", question="first")]
        assert encode.busy.wait(20)
        asked += [pool.submit(served.get, "/search", question=f"{n}") for n in range(3)]
        wait_until(lambda: served.service._searcher and len(served.service._searcher) == 3)
        stopping = pool.submit(served.stop)
        wait_until(lambda: _refuses(served.port))
        encode.go.set()
        assert [future.result().status for future in asked] == [200] * 4
        stopping.result()


def _refuses(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return False
    except OSError:
        return True


def test_a_new_version_is_taken_up_without_a_failed_request(
    muse: MuseEncoder, tmp_path: Path
) -> None:
    folder = tmp_path / "index"
    writer = Index.build(muse, DOCUMENTS[:3], folder)
    new = IndexDocument("telephone", "Bell invented the telephone.", "Bell", language="en")
    with running(Index.open(folder, muse), ServerSettings(refresh_seconds=0.02)) as served:
        ended = threading.Event()
        statuses: list[int] = []
        versions: list[int] = []

        def keep_asking() -> None:
            while not ended.is_set():
                answer = served.get("/search", question="Wer erfand das Telefon?", k=1)
                statuses.append(answer.status)
                versions.append(answer.json["version"])

        with ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(keep_asking) for _ in range(3)]
            try:
                for change in (lambda: writer.add([new]), lambda: writer.delete(["bridge"])):
                    change()
                    wait_until(lambda: served.get("/healthz").json["version"] == writer.version)
                    count = len(statuses)
                    wait_until(lambda least=count + 6: len(statuses) >= least)
            finally:
                ended.set()
            for client in clients:
                client.result()
        assert set(statuses) == {200}
        assert set(versions) == {1, 2, 3}
        found = served.get("/search", question="Wer erfand das Telefon?", k=1).json
        assert found["hits"][0]["document_id"] == "telephone"
        assert served.get("/documents/bridge").status == 404
        assert b"clrelkt_index_switches_total 2.0" in served.get("/metrics").body


def test_a_version_that_cannot_be_opened_leaves_the_old_one(
    muse: MuseEncoder, tmp_path: Path
) -> None:
    folder = tmp_path / "index"
    Index.build(muse, DOCUMENTS[:3], folder).close()
    with running(Index.open(folder, muse), ServerSettings(refresh_seconds=0.02)) as served:
        present = folder / "generations" / "000001.json"
        assert present.exists()
        present.with_name("000002.json").write_text("{", "utf-8")
        wait_until(lambda: b"refresh_failures_total 0.0" not in served.get("/metrics").body)
        answer = served.get("/search", question="bees")
        assert (answer.status, answer.json["version"]) == (200, 1)


def test_the_description_lists_what_there_is(served: Served) -> None:
    document = served.get("/openapi.json").json
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {
        "/search",
        "/documents",
        "/documents/{id}",
        "/healthz",
        "/metrics",
    }
    search = document["components"]["schemas"]["SearchRequest"]["properties"]
    assert search["k"]["maximum"] == served.service.settings.max_hits
    names = [entry["name"] for entry in document["paths"]["/search"]["get"]["parameters"]]
    assert names == list(search)


def test_page_files_are_cached_by_their_content(served: Served) -> None:
    first = served.get("/page.css")
    again = served.ask("GET", "/page.css", None, {"if-none-match": first.headers["etag"]})
    assert (first.status, again.status, again.body) == (200, 304, b"")


def test_a_reader_finds_answers_in_the_first_hits(index: Index, toy_reader: Reader) -> None:
    with running(index, ServerSettings(read_hits=2), toy_reader) as served:
        assert served.get("/healthz").json["reader"] == "toy"
        hits = served.post({"question": QUESTION, "k": 4}).json["hits"]
        expected = toy_reader.read(QUESTION, [hit["text"] for hit in hits[:2]])
        for hit, reading in zip(hits, expected, strict=False):
            assert reading.answer is not None
            answer = hit["answer"]
            assert answer["text"] == reading.answer.text
            assert hit["text"][answer["start"] : answer["stop"]] == answer["text"]
        assert [hit["answer"] for hit in hits[2:]] == [None, None]
        unread = served.post({"question": QUESTION, "answers": False}).json["hits"]
        assert all(hit["answer"] is None for hit in unread)
