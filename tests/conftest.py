"""What many tests share: the corpora and the encoders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clrelkt.corpora.folders import find_data
from clrelkt.encoders import MuseEncoder, load_encoder

Need = Callable[[Path | None, str], Path]


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def need() -> Need:
    """Return ``need(path, how_to_get)``: the path, or the end of a test that cannot do without.

    The test is skipped where the file or folder is missing. Where a CI run has said that the
    corpora are there (``CI`` and ``CLRELKT_DATA`` are set), it fails instead, so that nothing goes
    untested unnoticed.
    """

    def present(path: Path | None, how_to_get: str) -> Path:
        if path is not None and path.exists():
            return path
        if os.environ.get("CI") and os.environ.get("CLRELKT_DATA"):
            pytest.fail(f"{path or 'a file'} is missing in CI: {how_to_get}")
        pytest.skip(how_to_get)

    return present


@pytest.fixture(scope="session")
def data_folder(need: Need) -> Path:
    """The folder of corpora that ``CLRELKT_DATA`` names."""
    named = os.environ.get("CLRELKT_DATA")
    return need(Path(named) if named else None, "set CLRELKT_DATA to a folder of corpora")


@pytest.fixture(scope="session")
def muse_8bit_file(need: Need) -> Path:
    """The ONNX file that carries the 8-bit weights."""
    folder = find_data("muse-8bit")
    file = None if folder is None else folder / "embedding_model_quantized.onnx"
    return need(file, "fetch the 8-bit weights: clrelkt data get muse-8bit")


@pytest.fixture(scope="session")
def muse() -> MuseEncoder:
    """Mind that all tests share it: none may change its parameters."""
    return load_encoder("muse")


@pytest.fixture(scope="session")
def muse_8bit(muse_8bit_file: Path) -> MuseEncoder:
    """Mind that all tests share it: none may change its parameters."""
    pytest.importorskip("onnx")
    return load_encoder("muse-8bit")
