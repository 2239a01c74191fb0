"""What the tests of searches share."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clrelkt.corpora import Corpus, load_corpus
from clrelkt.encoders import MuseEncoder
from clrelkt.search import Index, IndexSettings

HOW_TO_GET_MILVUS = (
    "no Milvus server here: install milvus==2.3.5 into a virtual environment of its own and set "
    "CLRELKT_MILVUS_SERVER to its bin/milvus-server"
)


@pytest.fixture(scope="session")
def xquad(data_folder: Path) -> Corpus:
    return load_corpus(data_folder / "xquad")


@pytest.fixture(scope="session")
def xquad_folder(
    muse: MuseEncoder, xquad: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An index of XQuAD's English documents in several segments, made once. It must not change."""
    folder = tmp_path_factory.mktemp("indexes") / "xquad"
    settings = IndexSettings(precision="int8", segment_rows=16)
    Index.build(muse, xquad.documents, folder, settings=settings, language="en").close()
    return folder


@pytest.fixture
def xquad_copy(xquad_folder: Path, tmp_path: Path) -> Path:
    """An index of XQuAD's documents that a test may change."""
    return Path(shutil.copytree(xquad_folder, tmp_path / "xquad"))


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Milvus server, started for the tests.

    Where there is none the test is skipped; in CI it fails.
    """
    program = os.environ.get("CLRELKT_MILVUS_SERVER") or shutil.which("milvus-server")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(HOW_TO_GET_MILVUS)
        pytest.skip(HOW_TO_GET_MILVUS)
    folder = tmp_path_factory.mktemp("milvus")
    port = free_port()
    with (folder / "log").open("wb") as log:
        command = [program, "--data", str(folder / "data"), "--proxy-port", str(port)]
        server = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"METRICS_PORT": str(free_port())},
        )
    try:
        wait_for_milvus(f"http://127.0.0.1:{port}", server, folder / "log")
        yield f"milvus://127.0.0.1:{port}"
    finally:
        # Its own way to stop takes minutes, and nothing here is to be kept.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_milvus(uri: str, server: subprocess.Popen[bytes], log: Path) -> None:
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException

    deadline = time.monotonic() + 120
    while True:
        try:
            client = MilvusClient(uri=uri, timeout=5)
            client.list_collections()
            client.close()
            return
        except MilvusException:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the Milvus server did not start: {log.read_text('utf-8')[-500:]}")
            time.sleep(0.5)
