"""Folders of transformers: what is read, what is written, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from tests.transformer_models import (
    FAMILIES,
    MAX_LENGTH,
    TEXTS,
    WIDTH,
    save_model,
    sentence_transformer,
)

from clrelkt.encoders import TransformerOptions, load_encoder
from clrelkt.encoders.transformer.encoder import TransformerEncoder
from clrelkt.errors import EncoderError, StorageError, UnknownNameError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

pytestmark = [
    pytest.mark.filterwarnings(rf"ignore:::{library}(\..*)?")
    for library in ("sentence_transformers", "transformers", "huggingface_hub", "peft", "torch.jit")
]

THEIRS = "sentence_transformers.models."
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture
def copied(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "copied"))


def unit(vectors: np.ndarray) -> np.ndarray:
    found: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


class TestSaving:
    @pytest.mark.parametrize("family", [*FAMILIES, "distilbert"])
    def test_sentence_transformers_opens_it(self, family: str, tmp_path: Path) -> None:
        folder = save_model(tmp_path / "plain", family)
        options = TransformerOptions(
            pooling=("cls",), question_prompt="query: ", passage_prompt="passage: ", max_length=50
        )
        encoder = load_encoder(folder, options)
        assert isinstance(encoder, TransformerEncoder)
        with torch.no_grad():
            for _, parameter in encoder.named_parameters():
                parameter.add_(0.01)
        encoder.save(tmp_path / "saved")
        opened = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
        assert opened.max_seq_length == 50
        texts = [text for text in TEXTS if len(encoder.tokenizer([text], "passage: ")[0]) <= 50]
        questions, passages = encoder.encode(texts, "question"), encoder.encode(texts)
        assert np.abs(opened.encode_query(texts) - questions).max() < 1e-5
        assert np.abs(opened.encode_document(texts) - passages).max() < 1e-5
        again = load_encoder(tmp_path / "saved")
        assert isinstance(again, TransformerEncoder)
        assert again.prompts == encoder.prompts
        assert again.tokenizer.max_length == 50
        assert np.array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
        assert again.weights == encoder.weights
        for name, tensor in encoder.network.unused.items():
            assert torch.equal(again.network.unused[name], tensor)

    def test_joined_pooling_and_a_dense_layer(self, plain: Path, tmp_path: Path) -> None:
        dense = Dense(2 * WIDTH, 12, activation_function=torch.nn.GELU())
        peer = sentence_transformer(plain, dense, pooling=("mean", "cls"))
        peer.save(str(tmp_path / "theirs"))
        encoder = load_encoder(tmp_path / "theirs")
        assert encoder.dimension == 12
        expected = peer.encode(list(TEXTS), normalize_embeddings=True)
        assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-5
        encoder.save(tmp_path / "ours")
        opened = SentenceTransformer(str(tmp_path / "ours"), device="cpu")
        assert np.abs(opened.encode(list(TEXTS)) - expected).max() < 1e-5
        kinds = [type(module).__name__ for module in opened]
        assert kinds == ["Transformer", "Pooling", "Dense", "Normalize"]

    def test_a_unit_vector_before_a_dense_layer(self, plain: Path, tmp_path: Path) -> None:
        peer = sentence_transformer(plain, Normalize(), Dense(WIDTH, 7), Normalize())
        peer.save(str(tmp_path / "theirs"))
        encoder = load_encoder(tmp_path / "theirs")
        assert np.abs(encoder.encode(TEXTS) - peer.encode(list(TEXTS))).max() < 1e-5
        encoder.save(tmp_path / "ours")
        again = load_encoder(tmp_path / "ours")
        assert np.array_equal(again.encode(TEXTS), encoder.encode(TEXTS))

    def test_languages_and_records_are_kept(self, plain: Path, tmp_path: Path) -> None:
        encoder = load_encoder(plain, TransformerOptions(languages=("de", "en")))
        encoder.save(tmp_path / "saved", records={"more.json": {"a": 1}})
        assert load_encoder(tmp_path / "saved").languages == {"de", "en"}
        assert json.loads((tmp_path / "saved/more.json").read_text()) == {"a": 1}
        encoder.save(tmp_path / "saved")  # What was an encoder is replaced.
        assert not (tmp_path / "saved/more.json").exists()

    def test_what_is_not_saved(self, plain: Path, tmp_path: Path) -> None:
        encoder = load_encoder(plain)
        with pytest.raises(EncoderError, match=r"save form 'delta': .* Use whole"):
            encoder.save(tmp_path / "saved", form="delta")
        compact = encoder.compact(encoder.tokenize(["the cat"]).token_ids)
        with pytest.raises(EncoderError, match="write it back first"):
            compact.save(tmp_path / "saved")
        (tmp_path / "full").mkdir()
        (tmp_path / "full/thesis.txt").write_text("precious")
        with pytest.raises(StorageError, match="no encoder"):
            encoder.save(tmp_path / "full")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


class TestReading:
    def test_what_they_saved(self, plain: Path, tmp_path: Path) -> None:
        peer = sentence_transformer(
            plain, Normalize(), prompts={"query": "query: ", "passage": "passage: "}
        )
        peer.save(str(tmp_path / "theirs"))
        encoder = load_encoder(tmp_path / "theirs")
        texts = list(TEXTS[:5])
        assert np.abs(encoder.encode(texts, "question") - peer.encode_query(texts)).max() < 1e-5
        # Their own default puts an empty prompt called "document" beside the one that was meant.
        expected = peer.encode(texts, prompt_name="passage")
        assert np.abs(encoder.encode(texts) - expected).max() < 1e-5

    def test_the_older_form(self, plain: Path, tmp_path: Path) -> None:
        sentence_transformer(plain).save(str(tmp_path / "theirs"))
        pooling = {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": False}
        (tmp_path / "theirs/1_Pooling/config.json").write_text(
            json.dumps(pooling | {"pooling_mode_max_tokens": True})
        )
        (tmp_path / "theirs/sentence_bert_config.json").write_text(
            json.dumps({"max_seq_length": 33, "do_lower_case": True})
        )
        modules = json.loads((tmp_path / "theirs/modules.json").read_text())
        for module in modules:
            module["type"] = "sentence_transformers.models." + module["type"].rsplit(".", 1)[1]
        (tmp_path / "theirs/modules.json").write_text(json.dumps(modules))
        peer = SentenceTransformer(str(tmp_path / "theirs"), device="cpu")
        encoder = load_encoder(tmp_path / "theirs")
        assert isinstance(encoder, TransformerEncoder)
        assert encoder.tokenizer.max_length == 33
        texts = ["THE CAT Sat", "the cat sat", "Die Katze"]
        expected = unit(peer.encode(texts))
        assert np.abs(encoder.encode(texts) - expected).max() < 1e-5
        assert np.abs(expected[0] - expected[1]).max() < 1e-6

    def test_a_transformer_in_a_folder_of_its_own(self, plain: Path, tmp_path: Path) -> None:
        sentence_transformer(plain).save(str(tmp_path / "theirs"))
        inner = tmp_path / "theirs/0_Transformer"
        inner.mkdir()
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            (tmp_path / "theirs" / name).rename(inner / name)
        modules = json.loads((tmp_path / "theirs/modules.json").read_text())
        modules[0]["path"] = "0_Transformer"
        (tmp_path / "theirs/modules.json").write_text(json.dumps(modules))
        found = load_encoder(tmp_path / "theirs").encode(TEXTS)
        assert np.array_equal(found, load_encoder(plain).encode(TEXTS))

    def test_pickled_weights(self, plain: Path, copied: Path) -> None:
        from safetensors.torch import load_file

        tensors = load_file(str(copied / "model.safetensors"))
        (copied / "model.safetensors").unlink()
        torch.save(tensors, copied / "pytorch_model.bin")
        found = load_encoder(copied).encode(TEXTS)
        assert np.array_equal(found, load_encoder(plain).encode(TEXTS))

    def test_a_lora_adapter(self, plain: Path, tmp_path: Path) -> None:
        peft = pytest.importorskip("peft")
        peer = sentence_transformer(plain)
        peer.add_adapter(
            peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False)
        )
        expected = peer.encode(list(TEXTS), normalize_embeddings=True)
        folder = tmp_path / "adapter"
        peer[0].model.save_pretrained(str(folder))
        peer.tokenizer.save_pretrained(str(folder))
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(plain)
        (folder / "adapter_config.json").write_text(json.dumps(config))
        assert not (folder / "config.json").exists()
        encoder = load_encoder(folder)
        assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-5
        assert np.abs(load_encoder(plain).encode(TEXTS) - expected).max() > 1e-3
        encoder.save(tmp_path / "merged")
        opened = SentenceTransformer(str(tmp_path / "merged"), device="cpu")
        assert np.abs(opened.encode(list(TEXTS)) - expected).max() < 1e-5


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


class TestRefusals:
    def test_no_tokenizer(self, copied: Path) -> None:
        for path in copied.glob("tokenizer*"):
            path.unlink()
        with pytest.raises(EncoderError, match=r"has no tokenizer .*save_pretrained"):
            load_encoder(copied)

    def test_no_encoder(self, copied: Path, tmp_path: Path) -> None:
        (copied / "config.json").unlink()
        with pytest.raises(EncoderError, match=r"neither clrelkt\.json, modules\.json nor"):
            load_encoder(copied)
        with pytest.raises(UnknownNameError, match="neither a folder nor one of muse"):
            load_encoder(tmp_path / "nowhere")

    def test_weights_that_lack_something(self, copied: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(str(copied / "model.safetensors"))
        del tensors["encoder.layer.1.output.dense.weight"]
        save_file(tensors, str(copied / "model.safetensors"), {"format": "pt"})
        with pytest.raises(EncoderError, match=r"lack 1 tensors .* encoder\.layer\.1\.output"):
            load_encoder(copied)

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
    def test_damaged_files(self, copied: Path, name: str) -> None:
        content = (copied / name).read_bytes()
        (copied / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(EncoderError, match="copied") as caught:
            load_encoder(copied)
        assert "\n" not in str(caught.value)

    def test_a_pickle_with_code_is_not_run(self, copied: Path, tmp_path: Path) -> None:
        (copied / "model.safetensors").unlink()
        trap = tmp_path / "trap"
        with (copied / "pytorch_model.bin").open("wb") as file:
            pickle.dump({"embeddings.word_embeddings.weight": Evil(trap)}, file)
        with pytest.raises(EncoderError, match="copied is no encoder that can be loaded"):
            load_encoder(copied)
        assert not trap.exists()

    def test_code_of_its_own_is_not_run(self, copied: Path, tmp_path: Path) -> None:
        config = json.loads((copied / "config.json").read_text())
        config |= {
            "model_type": "mine",
            "auto_map": {"AutoConfig": "mine.C", "AutoModel": "mine.M"},
        }
        (copied / "config.json").write_text(json.dumps(config))
        (copied / "mine.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'trap')!r})\n")
        with pytest.raises(EncoderError, match=r"code of its own .*trust_remote_code=True"):
            load_encoder(copied)
        assert not (tmp_path / "trap").exists()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ([{"type": "mine.Transformer", "path": ""}], "code from elsewhere"),
            (
                [{"type": "sentence_transformers.models.BoW", "path": ""}],
                "lists BoW: a Transformer",
            ),
            (
                [{"type": "sentence_transformers.models.Transformer", "path": "../x"}],
                "lies outside",
            ),
            ([{"path": ""}], "no list of modules"),
            ({"type": 1}, "no list of modules"),
        ],
    )
    def test_modules(self, copied: Path, change: Any, message: str) -> None:
        (copied / "modules.json").write_text(json.dumps(change))
        with pytest.raises(EncoderError, match=message):
            load_encoder(copied)

    def test_modules_that_do_not_go_together(self, plain: Path, tmp_path: Path) -> None:
        sentence_transformer(plain, Dense(WIDTH, 9)).save(str(tmp_path / "theirs"))
        with pytest.raises(EncoderError, match=f"takes {WIDTH} numbers, but gets {2 * WIDTH}"):
            load_encoder(tmp_path / "theirs", TransformerOptions(pooling=("cls", "mean")))
        config = json.loads((tmp_path / "theirs/2_Dense/config.json").read_text())
        changed = config | {"activation_function": "os.system"}
        (tmp_path / "theirs/2_Dense/config.json").write_text(json.dumps(changed))
        with pytest.raises(EncoderError, match=r"activation 'os\.system'"):
            load_encoder(tmp_path / "theirs")
        (tmp_path / "theirs/2_Dense/config.json").write_text(json.dumps(config | {"bias": False}))
        with pytest.raises(EncoderError, match="does not fit its config"):
            load_encoder(tmp_path / "theirs")

    def test_an_encoder_with_a_decoder(self, copied: Path) -> None:
        import transformers

        config = transformers.T5Config(
            vocab_size=50, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2
        )
        transformers.T5Model(config).save_pretrained(str(copied))
        with pytest.raises(EncoderError, match="an encoder with a decoder"):
            load_encoder(copied)


class Hub(BaseHTTPRequestHandler):
    """As much of a model hub as a download asks for."""

    folder: Path

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        names = sorted(path.name for path in self.folder.iterdir())
        if path.startswith("api/models/me/mine/tree/"):
            self._send(json.dumps([self._entry(name) for name in names]).encode())
        elif path.startswith("api/models/me/mine"):
            siblings = [{"rfilename": name} for name in names]
            self._send(json.dumps({"id": "me/mine", "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith("me/mine/resolve/"):
            self._send((self.folder / path.rpartition("/")[2]).read_bytes())
        else:
            self._send(b'{"error": "Repository not found"}', status=404, code="RepoNotFound")

    def _entry(self, name: str) -> dict[str, Any]:
        content = (self.folder / name).read_bytes()
        oid = hashlib.sha1(content).hexdigest()
        return {"type": "file", "path": name, "size": len(content), "oid": oid}

    def _send(self, body: bytes, *, status: int = 200, code: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def endpoint(copied: Path) -> Iterator[str]:
    (copied / "pytorch_model.bin").write_bytes(b"could be a pickle")
    (copied / "code.py").write_text("1 / 0\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Hub,), {"folder": copied}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


_FROM_HUB = """
import sys
from clrelkt.encoders import load_encoder
from clrelkt.errors import UnknownNameError
encoder = load_encoder("me/mine")
print(encoder.name, encoder.dimension)
try:
    load_encoder("me/nothing")
except UnknownNameError as error:
    print(error)
"""


def test_a_name_of_the_hub(endpoint: str, tmp_path: Path) -> None:
    home = tmp_path / "hf"
    done = subprocess.run(
        [sys.executable, "-c", _FROM_HUB],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_TOKEN": ""},
    )
    first, second = done.stdout.splitlines()
    assert first == f"me/mine {WIDTH}"
    assert second.startswith("no encoder 'me/nothing': it is no folder here, and the model hub did")
    assert done.stderr == ""
    fetched = {path.name for path in home.rglob("snapshots/*/*")}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= fetched
    assert not fetched & {"pytorch_model.bin", "code.py"}


def test_limits_come_from_the_model(plain: Path) -> None:
    encoder = load_encoder(plain)
    assert isinstance(encoder, TransformerEncoder)
    assert encoder.tokenizer.max_length == MAX_LENGTH
