"""A finished run with its report, and a real browser to open it in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clrelkt.reports.finish import finish_run
from clrelkt.training import Run


@pytest.fixture(scope="session")
def reported(finished_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete run of the tiny recipe with its report. No test may change it."""
    folder = tmp_path_factory.mktemp("reported") / "run"
    shutil.copytree(finished_run.folder, folder)
    finish_run(folder)
    return folder


@pytest.fixture
def own_run(reported: Path, tmp_path: Path) -> Path:
    """A copy of that folder, which a test may change."""
    return Path(shutil.copytree(reported, tmp_path / "run"))
