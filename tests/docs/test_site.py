"""The site is built without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clrelkt.cli.main import cli

ROOT = Path(__file__).parents[2]


def test_it_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"),
            *("-d", str(tmp_path / "doctrees"), str(ROOT / "docs"), str(tmp_path / "html")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html" / "api.html").read_text("utf-8")
    for name in ("clrelkt.encoders.load_encoder", "clrelkt.search.Index.search"):
        assert f'id="{name}"' in page


def test_every_command_is_told_of() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    told = "\n".join(page.read_text("utf-8") for page in pages)
    missing = [name for name in cli.list_commands(None) if f"clrelkt {name}" not in told]  # type: ignore[arg-type]
    assert not missing
