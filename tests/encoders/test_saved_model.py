"""``clrelkt convert-muse`` against a SavedModel that TensorFlow builds and runs."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clrelkt.encoders import MUSE_LANGUAGES, MuseEncoder, load_encoder
from clrelkt.errors import MissingExtraError

TEXTS = ["the cat sat on the mat", "", "a dog", "the dog ran after the cat " * 20]
HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None

needs_tensorflow = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(not HAS_TENSORFLOW, reason="make test-tensorflow runs it"),
]


def convert(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clrelkt", "convert-muse", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def built(small_encoder: MuseEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel of a small encoder, a checkpoint of it, and what TensorFlow computes."""
    folder = tmp_path_factory.mktemp("tensorflow")
    tensors: dict[str, Any] = {
        name: parameter.detach().numpy()
        for name, parameter in small_encoder.network.named_parameters()
    }
    np.savez(folder / "tensors.npz", **tensors)
    (folder / "pieces.model").write_bytes(small_encoder.tokenizer.model)
    (folder / "texts.json").write_text(json.dumps(TEXTS), "utf-8")
    script = Path(__file__).with_name("tensorflow_muse.py")
    parts = [str(folder / name) for name in ("tensors.npz", "pieces.model", "texts.json")]
    done = subprocess.run(
        [sys.executable, str(script), *parts, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    return folder


class TestWithTensorFlow:
    pytestmark = needs_tensorflow

    def test_a_saved_model(self, built: Path, small_encoder: MuseEncoder, tmp_path: Path) -> None:
        done = convert(str(built / "saved_model"), "-o", str(tmp_path / "muse"))
        assert done.returncode == 0, done.stderr
        loaded = load_encoder(tmp_path / "muse")
        np.testing.assert_allclose(
            loaded.encode(TEXTS), np.load(built / "vectors.npy"), atol=1e-5, rtol=0
        )
        assert isinstance(loaded, MuseEncoder)
        assert loaded.tokenizer.model == small_encoder.tokenizer.model
        assert loaded.weights.startswith("converted from TensorFlow (table ")
        assert loaded.identity.base == "universal-sentence-encoder-multilingual-3"
        assert loaded.languages == MUSE_LANGUAGES

    @pytest.mark.parametrize("name", ["old", "old/model.ckpt"])
    def test_a_checkpoint(
        self, built: Path, small_encoder: MuseEncoder, tmp_path: Path, name: str
    ) -> None:
        pieces = str(built / "pieces.model")
        target = str(tmp_path / "muse")
        done = convert(str(built / name), "-o", target, "--sentencepiece", pieces)
        assert done.returncode == 0, done.stderr
        found = load_encoder(target).encode(TEXTS)
        np.testing.assert_allclose(found, np.load(built / "vectors.npy"), atol=1e-5, rtol=0)

    def test_what_is_no_such_model(self, built: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        other = tmp_path / "other"
        shutil.copytree(built / "saved_model", other)
        index = other / "variables" / "variables.index"
        index.write_bytes(index.read_bytes()[:100])
        target = tmp_path / "target"
        for path, message in (
            (tmp_path / "empty", "is neither a SavedModel"),
            (tmp_path / "nothing", "no checkpoint that TensorFlow reads"),
            (other, "no checkpoint that TensorFlow reads"),
        ):
            done = convert(str(path), "-o", str(target))
            assert done.returncode == 1, done.stdout
            assert message in done.stderr
            assert "Traceback" not in done.stderr
            assert not target.exists()


@pytest.mark.skipif(HAS_TENSORFLOW, reason="TensorFlow is installed")
def test_without_tensorflow_the_extra_is_named(tmp_path: Path) -> None:
    from clrelkt.encoders.muse.saved_model import read_saved_model

    with pytest.raises(MissingExtraError, match=r"pip install 'clrelkt\[tensorflow\]'"):
        read_saved_model(tmp_path)
