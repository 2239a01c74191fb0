"""Downloads from a real server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from clrelkt.corpora.download import copy_file, download
from clrelkt.errors import DownloadError, StorageError

BODY = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """A server of one file; it notes the ranges that it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        if self.path == "/absent":
            return self.send_error(404)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if self.path == "/picky" and start:
            return self.send_error(416)
        if self.path == "/plain":
            start = 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        end = 500_000 if self.path == "/cut" and not start else len(BODY)
        self.wfile.write(BODY[start:end])
        return None

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def get(url: str, target: Path, **more: object) -> None:
    download(url, target, **{"size": len(BODY), "sha256": SHA256, **more})  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_file(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    target = tmp_path / "new/file.bin"
    get(f"{server.url}/file", target, progress=lambda *step: seen.append(step))
    assert target.read_bytes() == BODY
    assert names(target.parent) == ["file.bin"]
    assert server.ranges == [None]
    assert seen[-1] == ("file.bin", len(BODY), len(BODY))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_what_is_not_known_is_not_checked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"of another file, perhaps")
    download(f"{server.url}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_download_cut_short_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file"
    with pytest.raises(DownloadError, match="ended after 500000 of 1024000 bytes; run the command"):
        get(f"{server.url}/cut", target)
    assert names(tmp_path) == ["file.part"]
    get(f"{server.url}/cut", target)
    assert target.read_bytes() == BODY
    assert names(tmp_path) == ["file"]
    assert server.ranges == [None, "bytes=500000-"]


@pytest.mark.parametrize(
    ("path", "ranges"), [("plain", ["bytes=1000-"]), ("picky", ["bytes=1000-", None])]
)
def test_a_server_that_knows_no_ranges_sends_it_all_again(
    server: Server, tmp_path: Path, path: str, ranges: list[str | None]
) -> None:
    (tmp_path / "file.part").write_bytes(BODY[:1000])
    get(f"{server.url}/{path}", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.ranges == ranges


def test_a_part_longer_than_the_file_is_begun_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(BODY + b"more")
    get(f"{server.url}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.ranges == [None]


def test_a_part_that_is_whole_is_only_checked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(BODY)
    get(f"{server.url}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.ranges == []


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"SHA-256 {SHA256}, expected {'0' * 64}"):
        get(f"{server.url}/file", tmp_path / "file", sha256="0" * 64)
    assert names(tmp_path) == []


def test_a_longer_file_is_refused_and_nothing_is_kept(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="expected 1000"):
        get(f"{server.url}/file", tmp_path / "file", size=1000)
    assert names(tmp_path) == []


def test_an_old_file_stays_when_the_new_one_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(DownloadError):
        get(f"{server.url}/file", tmp_path / "file", sha256="0" * 64)
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_file_that_is_not_there(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"/absent: the server answered 404\..*--from FOLDER"):
        get(f"{server.url}/absent", tmp_path / "file")
    assert names(tmp_path) == []


def test_a_server_that_is_not_there(server: Server, tmp_path: Path) -> None:
    server.server_close()
    with pytest.raises(DownloadError, match=f"{server.url}/file: cannot be fetched") as caught:
        get(f"{server.url}/file", tmp_path / "file")
    assert "--from FOLDER" in str(caught.value)


def test_a_folder_that_cannot_be_made_is_a_storage_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "in_the_way").write_bytes(b"")
    with pytest.raises(StorageError, match="in_the_way"):
        get(f"{server.url}/file", tmp_path / "in_the_way/file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_a_storage_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left"):
        get(f"{server.url}/file", tmp_path / "file")


def test_a_copy_that_cannot_be_written_leaves_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"data")
    (tmp_path / "in_the_way").write_bytes(b"")
    with pytest.raises(StorageError, match=r"in_the_way.*set CLRELKT_DATA to a folder"):
        copy_file(tmp_path / "source", tmp_path / "in_the_way" / "file")
    with pytest.raises(StorageError, match=r"absent: No such file"):
        copy_file(tmp_path / "absent", tmp_path / "copied")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in_the_way", "source"]
