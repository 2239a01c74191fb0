"""``clrelkt serve`` as people run it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from clrelkt.cli.main import cli, main


@contextmanager
def command(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the command on a free port until the block ends; yield process and port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "clrelkt", "serve", *arguments, "--port", "0", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": ""},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), process.communicate(timeout=20)
        yield process, int(line.rsplit(":", 1)[1].strip("/\n"))
    finally:
        process.kill()
        process.communicate(timeout=20)


def search(port: int, question: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = json.dumps({"question": question}).encode()
    connection.request("POST", "/search", body, {"content-type": "application/json"})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_it_serves_until_it_is_told_to_end(index_folder: Path, name: str) -> None:
    with command(str(index_folder)) as (process, port), ThreadPoolExecutor(8) as pool:
        assert search(port, "¿Quién descubrió la penicilina?") == 200
        asked = [pool.submit(search, port, f"question {number}") for number in range(8)]
        assert asked[0].result() == 200
        process.send_signal(getattr(signal, name))
        # Those that the server has taken are answered; those that came too late see it closed.
        for future in asked:
            assert future.exception() is not None or future.result() == 200
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_port_that_is_taken_is_told(
    index_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(SystemExit) as caught:
            main(["serve", str(index_folder), "--port", str(port)])
    assert caught.value.code == 1
    assert f"127.0.0.1 port {port}: Address already in use" in capsys.readouterr().err


def test_a_folder_that_is_no_index_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", str(tmp_path)])
    assert caught.value.code == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_help_says_where_it_listens() -> None:
    done = CliRunner().invoke(cli, ["serve", "--help"])
    assert done.exit_code == 0
    assert "127.0.0.1" in done.output
    assert "loopback" in done.output or "this machine alone" in done.output
