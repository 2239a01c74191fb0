"""Exports, opened by the tools that they are for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clrelkt.encoders import MuseEncoder, load_encoder
from clrelkt.errors import EncoderError, StorageError
from clrelkt.sharing import EXPORT_FORMS, ExportForm, OnnxEncoder, export_encoder, open_export

TEXTS = ["the cat sat on the mat", "", "a dog", "Where did the river begin? " * 40]

pytestmark = [
    pytest.mark.filterwarnings(rf"ignore:::{library}(\..*)?")
    for library in ("sentence_transformers", "transformers", "huggingface_hub")
]

RUNS_WITHOUT = """
import json, sys
for name in {forbidden}:
    sys.modules[name] = None
{code}
print(json.dumps(vectors.tolist()))
"""
ONNX = """
import numpy, onnxruntime, sentencepiece
folder, texts = sys.argv[1], json.loads(sys.argv[2])
pieces = sentencepiece.SentencePieceProcessor(model_file=folder + "/sentencepiece.model")
session = onnxruntime.InferenceSession(folder + "/model.onnx")
ids = pieces.encode(texts, add_bos=True, add_eos=True)
(vectors,) = session.run(None, {
    "token_ids": numpy.concatenate(ids), "lengths": numpy.array([len(text) for text in ids])
})
"""
SENTENCE_TRANSFORMERS = """
from sentence_transformers import SentenceTransformer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
vectors = SentenceTransformer(folder, device="cpu", trust_remote_code=True).encode(texts)
"""


def run_without(forbidden: list[str], code: str, folder: Path, cache: Path) -> np.ndarray:
    """Run ``code`` in a process that can import none of ``forbidden``."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            RUNS_WITHOUT.format(forbidden=forbidden, code=code),
            str(folder),
            json.dumps(TEXTS),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout), dtype=np.float32)


def test_onnx_needs_neither_torch_nor_clrelkt(small_encoder: MuseEncoder, tmp_path: Path) -> None:
    export_encoder(small_encoder, tmp_path / "onnx", "onnx")
    found = run_without(["torch", "clrelkt", "onnx"], ONNX, tmp_path / "onnx", tmp_path)
    np.testing.assert_allclose(found, small_encoder.encode(TEXTS), atol=2e-6, rtol=0)


def test_sentence_transformers_opens_it_without_clrelkt(
    small_encoder: MuseEncoder, tmp_path: Path
) -> None:
    pytest.importorskip("sentence_transformers")
    export_encoder(small_encoder, tmp_path / "export", "sentence-transformers")
    found = run_without(["clrelkt"], SENTENCE_TRANSFORMERS, tmp_path / "export", tmp_path)
    np.testing.assert_allclose(found, small_encoder.encode(TEXTS), atol=2e-6, rtol=0)
    again = load_encoder(tmp_path / "export")
    assert np.array_equal(again.encode(TEXTS), small_encoder.encode(TEXTS))


def test_the_module_for_sentence_transformers(small_encoder: MuseEncoder, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    from clrelkt.sharing.muse_module import MuseSentenceEncoder

    export_encoder(small_encoder, tmp_path / "export", "sentence-transformers")
    module = MuseSentenceEncoder.load(str(tmp_path / "export"))
    assert module.get_embedding_dimension() == 512
    features = module(module.preprocess(["the cat", "a dog sat"], prompt="on the mat "))
    expected = small_encoder.encode(["on the mat the cat", "on the mat a dog sat"])
    found = features["sentence_embedding"]
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=2e-6, rtol=0)
    found[:, 0].sum().backward()
    gradient = module.get_parameter("convolution_1_window_5").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
    (tmp_path / "again").mkdir()
    module.save(str(tmp_path / "again"))
    again = MuseSentenceEncoder.load(str(tmp_path / "again"))
    assert torch.equal(again.get_parameter("embedding"), module.get_parameter("embedding"))
    assert (tmp_path / "again" / "muse_module.py").is_file()


@pytest.mark.parametrize("form", ["onnx", "onnx-int8", "safetensors-fp16"])
def test_opened_exports_are_encoders(
    small_encoder: MuseEncoder, tmp_path: Path, form: ExportForm
) -> None:
    folder = tmp_path / form
    export_encoder(small_encoder, folder, form)
    opened = open_export(folder, form)
    assert opened.name == str(folder)
    assert opened.weights == small_encoder.weights
    assert opened.languages == small_encoder.languages
    assert opened.dimension == 512
    vectors = opened.encode(TEXTS, "question", progress=True)
    assert vectors.dtype == np.float32
    cosines = (vectors.astype(np.float64) * small_encoder.encode(TEXTS)).sum(1)
    assert cosines.min() >= 0.998


@pytest.mark.parametrize("form", EXPORT_FORMS)
def test_a_folder_with_something_else_is_left_alone(
    small_encoder: MuseEncoder, tmp_path: Path, form: ExportForm
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="is there and is no encoder"):
        export_encoder(small_encoder, tmp_path, form)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_export_is_replaced(small_encoder: MuseEncoder, tmp_path: Path) -> None:
    export_encoder(small_encoder, tmp_path / "export", "safetensors-fp16")
    export_encoder(small_encoder, tmp_path / "export", "onnx")
    names = {path.name for path in (tmp_path / "export").iterdir()}
    assert names == {"clrelkt.json", "model.onnx", "sentencepiece.model"}


def test_folders_that_are_no_onnx_export(small_encoder: MuseEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "onnx"
    with pytest.raises(EncoderError, match=f"{folder} is no exported ONNX encoder"):
        OnnxEncoder.open(folder)
    export_encoder(small_encoder, folder, "onnx")
    with pytest.raises(EncoderError, match="kind 'muse-onnx'"):
        load_encoder(folder)
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(EncoderError, match=f"{folder} is no exported ONNX encoder"):
        OnnxEncoder.open(folder)
