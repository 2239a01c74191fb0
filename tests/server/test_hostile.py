"""Whatever is sent, the server answers, and goes on.

The everyday run sends some hundreds; ``CLRELKT_HOSTILE=10000`` sends as many as it says.
"""

from __future__ import annotations

import http.client
import json
import os
from collections import Counter

import pytest
from tests.server.conftest import DOCUMENTS, Served, running
from tests.server.hostile import Attack, attacks

from clrelkt.encoders import MuseEncoder
from clrelkt.search import Index

COUNT = int(os.environ.get("CLRELKT_HOSTILE", "650"))
REFUSALS = {400, 404, 405, 413, 414, 415, 422}


def send(connection: http.client.HTTPConnection, attack: Attack) -> tuple[int, str, bytes]:
    method, target, body, headers = attack
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value.encode("latin-1"))
    if body is not None:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    return response.status, response.getheader("content-type") or "", response.read()


def test_nothing_that_is_sent_breaks_the_server(served: Served) -> None:
    statuses: Counter[int] = Counter()
    connection = served.connect()
    for attack in attacks(COUNT):
        try:
            status, kind, body = send(connection, attack)
        except (BrokenPipeError, ConnectionResetError, http.client.BadStatusLine):
            # Refused before it was read to its end: what counts is that the server lives.
            connection.close()
            connection = served.connect()
            status, kind, body = send(connection, ("GET", "/healthz", None, {}))
            assert status == 200, attack
            continue
        statuses[status] += 1
        assert status < 500, (attack, body)
        if kind == "application/json":
            found = json.loads(body)  # Strict: no NaN, no half of a surrogate pair.
            assert (status == 200) is ("error" not in found), (attack, body)
        else:
            # Nothing that a client has sent comes back as a page.
            assert kind.startswith(("text/plain", "text/html", "text/javascript")), attack
            assert b"alert(1)" not in body
    connection.close()
    assert statuses[200] > COUNT / 10
    assert set(statuses) <= REFUSALS | {200}
    health = served.get("/healthz").json
    assert (health["status"], health["documents"]) == ("ok", len(DOCUMENTS))
    assert served.get("/search", question="bees").json["hits"]


def test_an_index_without_documents_is_served(
    muse: MuseEncoder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("emptied") / "index"
    index = Index.build(muse, DOCUMENTS[:1], folder)
    index.delete([DOCUMENTS[0].id])
    with running(index) as served:
        for by in ("document", "passage"):
            found = served.get("/search", question="bees", by=by)
            assert (found.status, found.json["hits"]) == (200, [])
        assert served.get("/documents").json["shown"] == []
        assert served.get("/healthz").json["status"] == "ok"
