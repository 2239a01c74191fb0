"""Push by its arguments; pull from a real server on loopback that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from clrelkt.encoders import MuseEncoder, load_encoder
from clrelkt.errors import DownloadError, EncoderError
from clrelkt.sharing import export_encoder
from clrelkt.sharing.hub import push

huggingface_hub = pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of a model hub as a download asks for: what a repository holds, and its files."""

    repositories: Mapping[str, Path] = {}

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        bodies = (self._body(path, name, folder) for name, folder in self.repositories.items())
        body = next((body for body in bodies if body is not None), None)
        if body is None:
            self._send(b'{"error": "Repository not found"}', status=404, code="RepoNotFound")
        else:
            self._send(body)

    def _body(self, path: str, name: str, folder: Path) -> bytes | None:
        if path.startswith(f"api/models/{name}/tree/"):
            return json.dumps(self._files(folder, tree=True)).encode()
        if path.startswith(f"api/models/{name}"):
            described = {"id": name, "sha": COMMIT, "siblings": self._files(folder)}
            return json.dumps(described).encode()
        file = folder / path.rpartition("/")[2]
        return file.read_bytes() if path.startswith(f"{name}/resolve/") else None

    def _files(self, folder: Path, *, tree: bool = False) -> list[dict[str, Any]]:
        names = sorted(path.name for path in folder.iterdir())
        if not tree:
            return [{"rfilename": name} for name in names]
        return [
            {
                "type": "file",
                "path": name,
                "size": (folder / name).stat().st_size,
                "oid": hashlib.sha1((folder / name).read_bytes()).hexdigest(),
            }
            for name in names
        ]

    def _send(self, body: bytes, *, status: int = 200, code: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def exported(small_encoder: MuseEncoder, tmp_path: Path) -> Path:
    folder = tmp_path / "exported"
    export_encoder(small_encoder, folder, "sentence-transformers")
    return folder


@pytest.fixture
def endpoint(exported: Path, tmp_path: Path) -> Iterator[str]:
    (exported / "pytorch_model.bin").write_bytes(b"could be a pickle")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    handler = type(
        "Handler",
        (Hub,),
        {"repositories": {"me/mine": exported, "me/other": tmp_path / "other"}},
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def pull(endpoint: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clrelkt", "pull", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), "HF_TOKEN": ""},
    )


def test_pull_brings_an_encoder_and_no_code(
    endpoint: str, small_encoder: MuseEncoder, tmp_path: Path
) -> None:
    done = pull(endpoint, tmp_path, "me/mine")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "mine"
    names = {path.name for path in (tmp_path / "mine").iterdir()}
    assert names == {
        "clrelkt.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentencepiece.model",
    }
    texts = ["the cat sat", "a dog"]
    loaded = load_encoder(tmp_path / "mine")
    assert np.array_equal(loaded.encode(texts), small_encoder.encode(texts))


def test_a_repository_that_is_not_there_or_is_no_encoder(endpoint: str, tmp_path: Path) -> None:
    for name, message in (
        ("me/nothing", "error: me/nothing: "),
        ("me/other", "error: me/other holds no encoder of clrelkt"),
        ("me/a/b", "error: 'me/a/b' is no name of a repository"),
    ):
        done = pull(endpoint, tmp_path, name, "-o", "target")
        assert done.returncode == 1, done.stdout
        assert done.stderr.startswith(message)
        assert len(done.stderr.strip().splitlines()) == 1
        assert not (tmp_path / "target").exists()


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    done = pull("http://127.0.0.1:9", tmp_path, "me/mine")
    assert done.returncode == 1
    assert done.stderr.startswith("error: me/mine: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "mine").exists()


def test_push_makes_the_repository_and_uploads_the_folder(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def record(name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            calls.append((name, arguments, named))
            return SimpleNamespace(commit_url="https://hub.invalid/me/mine/commit/1")

        return call

    # Nothing can be uploaded here; what the library is asked for is the whole of the work.
    monkeypatch.setattr(huggingface_hub, "create_repo", record("create_repo"))
    monkeypatch.setattr(huggingface_hub, "upload_folder", record("upload_folder"))
    address = push(exported, "me/mine", private=True, message="First")
    assert address == "https://hub.invalid/me/mine/commit/1"
    assert calls == [
        ("create_repo", ("me/mine",), {"private": True, "exist_ok": True}),
        (
            "upload_folder",
            (),
            {
                "repo_id": "me/mine",
                "folder_path": str(exported),
                "commit_message": "First",
                "ignore_patterns": [".*"],
            },
        ),
    ]


def test_push_asks_for_parameters_that_the_library_has() -> None:
    import inspect

    created = inspect.signature(huggingface_hub.create_repo).parameters
    assert {"private", "exist_ok"} <= set(created)
    uploaded = inspect.signature(huggingface_hub.upload_folder).parameters
    assert {"repo_id", "folder_path", "commit_message", "ignore_patterns"} <= set(uploaded)


def test_push_refuses_what_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=f"{tmp_path} is no encoder"):
        push(tmp_path, "me/mine")


def test_push_says_why_the_hub_refused(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whose error it is depends on the version.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    def refuse(*arguments: Any, **named: Any) -> None:
        raise HTTPError("401 Unauthorized\nmore")

    monkeypatch.setattr(huggingface_hub, "create_repo", refuse)
    with pytest.raises(DownloadError, match=r"me/mine: 401 Unauthorized\. Check the name"):
        push(exported, "me/mine")
