"""``clrelkt encoder``: a model from elsewhere becomes an encoder of every command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tests.transformer_models import MAX_LENGTH, TEXTS, WIDTH, save_model

from clrelkt.cli.main import cli
from clrelkt.encoders import TransformerOptions, load_encoder
from clrelkt.errors import SettingsError, StorageError

pytestmark = [
    pytest.mark.filterwarnings(rf"ignore:::{library}(\..*)?")
    for library in ("transformers", "huggingface_hub", "torch.jit")
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("plain") / "model")


def invoke(*arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_import_and_show(plain: Path, tmp_path: Path) -> None:
    output = tmp_path / "encoder"
    said = invoke(
        "encoder", "import", str(plain), "-o", str(output), "--pooling", "cls",
        "--question-prompt", "query: ", "--passage-prompt", "passage: ", "--max-length", "40",
        "--languages", "de,en",
    )  # fmt: skip
    assert said.strip() == str(output)
    found = json.loads(invoke("encoder", "show", str(output), "--json"))
    assert found["kind"] == "xlm-roberta"
    assert found["pooling"] == ["cls"]
    assert (found["question_prompt"], found["passage_prompt"]) == ("query: ", "passage: ")
    assert found["max_length"] == 40
    assert found["languages"] == ["de", "en"]
    assert found["dimension"] == WIDTH
    options = TransformerOptions(
        pooling=("cls",), question_prompt="query: ", passage_prompt="passage: ", max_length=40
    )
    expected = load_encoder(plain, options).encode(TEXTS, "question")
    assert np.array_equal(load_encoder(output).encode(TEXTS, "question"), expected)
    table = invoke("encoder", "show", str(output))
    assert "pooling" in table
    assert "cls" in table
    assert "mUSE" in invoke("encoder", "show", "muse")


def test_an_added_dimension(plain: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        invoke("encoder", "import", str(plain), "-o", str(tmp_path / name), "--dimension", "48")
    one, two = (load_encoder(tmp_path / name) for name in ("one", "two"))
    assert one.dimension == 48 > WIDTH
    vectors = one.encode(TEXTS)
    assert np.array_equal(vectors, two.encode(TEXTS))
    # More numbers than before: every angle is kept.
    before = load_encoder(plain).encode(TEXTS)
    np.testing.assert_allclose(vectors @ vectors.T, before @ before.T, atol=1e-5)


def test_what_cannot_be(plain: Path, tmp_path: Path) -> None:
    def run(*more: str) -> None:
        command = ["encoder", "import", str(plain), *more]
        CliRunner().invoke(cli, command, catch_exceptions=False)

    with pytest.raises(SettingsError, match=f"has {MAX_LENGTH} places"):
        run("-o", str(tmp_path / "x"), "--max-length", "5000")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("precious")
    with pytest.raises(StorageError, match="no encoder"):
        run("-o", str(tmp_path / "full"))
    assert not (tmp_path / "x").exists()
