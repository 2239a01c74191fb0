"""Transformers as ONNX graphs, beside the encoders that they were made from."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.transformer_models import FAMILIES, MAX_LENGTH, TEXTS, save_model

from clrelkt.cli.main import main
from clrelkt.encoders import load_encoder
from clrelkt.encoders.transformer.layout import TextLayout
from clrelkt.encoders.transformer.options import TransformerOptions
from clrelkt.errors import EncoderError
from clrelkt.sharing import (
    OnnxEncoder,
    TransformerOnnxEncoder,
    export_encoder,
    open_export,
    open_onnx,
    transformer_graph,
)
from clrelkt.sharing.transformer_onnx import padded_runs

pytestmark = [
    pytest.mark.filterwarnings(rf"ignore:::{library}(\..*)?")
    for library in ("sentence_transformers", "transformers", "huggingface_hub")
]

LONG = "The river rose, and the cat sat on the hill. " * 40
ALL = (*TEXTS, LONG, "a dog. " + LONG)


def cosines(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(found.astype(np.float64), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)
    sums: np.ndarray = (found.astype(np.float64) * expected).sum(1)
    return sums


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """An encoder with prompts and a projection, and its export."""
    folder = tmp_path_factory.mktemp("made")
    encoder = load_encoder(
        save_model(folder / "model"),
        TransformerOptions(
            pooling=("cls", "mean"),
            question_prompt="query: ",
            passage_prompt="passage: ",
            languages=("de", "en"),
            dimension=24,
        ),
    )
    export_encoder(encoder, folder / "onnx", "onnx", card="# Mine\n")
    return encoder, folder / "onnx"


@pytest.mark.parametrize("family", [*FAMILIES, "distilbert"])
def test_vectors_are_the_encoders(family: str, tmp_path: Path) -> None:
    encoder = load_encoder(save_model(tmp_path / "model", family))
    expected = encoder.encode(ALL)
    for form, bar in (("onnx", 0.99999), ("onnx-int8", 0.99)):
        export_encoder(encoder, tmp_path / form, form)  # type: ignore[arg-type]
        opened = open_export(tmp_path / form, form)  # type: ignore[arg-type]
        assert isinstance(opened, TransformerOnnxEncoder)
        assert opened.dimension == encoder.dimension
        assert opened.weights == encoder.weights
        assert opened.languages == encoder.languages
        assert cosines(opened.encode(ALL, progress=True), expected).min() > bar
    whole, small = ((tmp_path / form / "model.onnx").read_bytes() for form in ("onnx", "onnx-int8"))
    assert len(small) < len(whole)
    assert b"MatMulInteger" in small
    assert b"MatMulInteger" not in whole


def test_prompts_and_long_texts(exported: tuple[Any, Path]) -> None:
    encoder, folder = exported
    opened = open_onnx(folder)
    for kind in ("question", "passage"):
        assert cosines(opened.encode(ALL, kind), encoder.encode(ALL, kind)).min() > 0.99999
    questions, passages = opened.encode(TEXTS, "question"), opened.encode(TEXTS, "passage")
    assert cosines(questions, passages).min() < 0.999
    assert opened.encode([]).shape == (0, 24)
    assert opened.languages == {"de", "en"}


def test_a_vector_does_not_depend_on_the_batch(exported: tuple[Any, Path]) -> None:
    opened = open_onnx(exported[1])
    together = opened.encode(ALL)
    alone = np.concatenate([opened.encode([text]) for text in ALL])
    np.testing.assert_allclose(together, alone, atol=2e-6, rtol=0)


def test_pooling_of_padded_states_is_that_of_ragged_ones() -> None:
    from clrelkt.encoders.transformer.pooling import PoolingMode, pool_states

    modes: tuple[PoolingMode, ...] = (
        "cls",
        "max",
        "mean",
        "mean_sqrt_len_tokens",
        "weightedmean",
        "lasttoken",
    )
    lengths = torch.tensor([4, 1, 3])
    states = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(1)) - 2
    mask = torch.arange(5) < lengths.unsqueeze(1)
    expected = pool_states(states[mask], TextLayout(lengths, (4, 1, 3)), modes)
    found = transformer_graph.padded_pooling(states, mask.long(), modes)
    torch.testing.assert_close(found, expected)


def test_runs_hold_every_text_once_within_the_budget() -> None:
    lengths = np.array([3, 50, 1, 7, 7, 0, 20])
    runs = list(padded_runs(lengths, 21))
    assert sorted(np.concatenate(runs).tolist()) == list(range(7))
    for rows in runs:
        assert len(rows) == 1 or len(rows) * lengths[rows].max() <= 21
    assert [lengths[rows].max() for rows in runs] == [50, 20, 7, 1]


def test_the_card_runs_where_there_is_neither_torch_nor_clrelkt(
    exported: tuple[Any, Path],
) -> None:
    encoder, folder = exported
    card = (folder / "README.md").read_text("utf-8")
    assert card.startswith("# Mine\n")
    code, *_ = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    short = [text for text in TEXTS if text]
    program = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'clrelkt', 'onnx'):\n    sys.modules[name] = None\n"
        f"{code}\nimport json\nprint(json.dumps(encode({short!r}, 'question').tolist()))"
    )
    found = np.array(json.loads(_run(program, folder)), dtype=np.float32)
    assert cosines(found, encoder.encode(short, "question")).min() > 0.99999


def test_it_opens_without_the_code_of_models(exported: tuple[Any, Path]) -> None:
    encoder, folder = exported
    program = (
        "import sys, json\n"
        "for name in ('modeling_utils', 'models.auto.modeling_auto', 'models.xlm_roberta'):\n"
        "    sys.modules['transformers.' + name] = None\n"
        "from pathlib import Path\nfrom clrelkt.sharing import open_onnx\n"
        f"print(json.dumps(open_onnx(Path('.')).encode({list(ALL)!r}).tolist()))"
    )
    found = np.array(json.loads(_run(program, folder)), dtype=np.float32)
    assert cosines(found, encoder.encode(ALL)).min() > 0.99999


def _run(program: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True, text=True, check=False, cwd=folder, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("form", ["onnx", "onnx-int8"])
def test_large_graphs_keep_their_weights_beside_them(
    exported: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any
) -> None:
    monkeypatch.setattr(transformer_graph, "_ONE_FILE_BYTES", 0)
    export_encoder(exported[0], tmp_path / "onnx", form)
    assert (tmp_path / "onnx" / "model.onnx.data").is_file()
    found = open_onnx(tmp_path / "onnx").encode(ALL)
    assert cosines(found, exported[0].encode(ALL)).min() > 0.99


def test_a_refusal_to_write_leaves_nothing(exported: tuple[Any, Path], tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    target = tmp_path / "out" / "onnx"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "clrelkt", "export", str(model)),
            *("--to", "onnx", "-o", str(target), "--no-check"),
        ],
        capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr
    assert list(target.parent.iterdir()) == []


def test_graphs_that_compute_something_else_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(save_model(tmp_path / "model", "bert"))
    monkeypatch.setattr(
        transformer_graph, "padded_pooling", lambda states, mask, modes: states[:, 0]
    )
    with pytest.raises(EncoderError, match="does not compute what the model does"):
        export_encoder(encoder, tmp_path / "onnx", "onnx")
    assert not (tmp_path / "onnx").exists()


def test_models_that_cannot_be_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(save_model(tmp_path / "model", "distilbert"))

    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError("no such operator")

    monkeypatch.setattr(type(encoder.network.model), "forward", refuse)
    with pytest.raises(EncoderError, match=r"family distilbert cannot be exported.*no such"):
        export_encoder(encoder, tmp_path / "onnx", "onnx")
    assert not (tmp_path / "onnx").exists()
    with pytest.raises(EncoderError, match="transformers can to sentence-transformers, onnx, onnx"):
        export_encoder(encoder, tmp_path / "delta", "delta-int8")


def test_folders_that_are_no_export(exported: tuple[Any, Path], tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="is no exported ONNX encoder"):
        open_onnx(tmp_path)
    with pytest.raises(EncoderError, match="is no exported ONNX encoder"):
        OnnxEncoder.open(exported[1])
    with pytest.raises(EncoderError, match=r"transformer-onnx.*open_onnx opens exported"):
        load_encoder(exported[1])
    description = json.loads((exported[1] / "clrelkt.json").read_text("utf-8"))
    assert description["max_length"] == MAX_LENGTH
    assert description["graph_bytes"] == (exported[1] / "model.onnx").stat().st_size
    assert description["prompts"] == {"question": "query: ", "passage": "passage: "}
    for change in ({"dimension": 7}, {"max_length": "x"}, {"prompts": {"question": 1}}):
        for path in exported[1].iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / "clrelkt.json").write_text(json.dumps(description | change))
        with pytest.raises(EncoderError, match=f"{tmp_path} is no exported ONNX encoder"):
            open_onnx(tmp_path)


def test_the_command_checks_the_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_model(tmp_path / "model", "mpnet")
    with pytest.raises(SystemExit) as ended:
        main(["export", str(model), "--to", "onnx", "-o", str(tmp_path / "onnx"), "--json"])
    captured = capsys.readouterr()
    assert ended.value.code == 0, captured.err
    record = json.loads(captured.out)
    assert record["form"] == "onnx"
    assert record["least_cosine"] > 0.99999
    for both in record["means"].values():
        assert both["original"] == both["export"]


def test_measure_exports_takes_what_a_transformer_can_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_model(tmp_path / "model", "bert")
    with pytest.raises(SystemExit) as ended:
        main(["measure", "exports", str(model), "--to", "onnx", "--to", "onnx-int8", "--json"])
    captured = capsys.readouterr()
    assert ended.value.code == 0, captured.err
    rows = json.loads(captured.out)["exports"]
    assert [row["form"] for row in rows] == ["onnx", "onnx-int8"]
    assert rows[0]["least_cosine"] > 0.99999
    assert 0.99 < rows[1]["least_cosine"] < 1
    assert rows[1]["megabytes"] < rows[0]["megabytes"]
