"""What many tests share: corpora, encoders, and a run that is small enough to train in seconds."""

from __future__ import annotations

import copy
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch

from clrelkt.corpora import Corpus, load_corpus
from clrelkt.corpora.folders import find_data
from clrelkt.encoders import MuseEncoder, load_encoder
from clrelkt.encoders.identity import EncoderIdentity
from clrelkt.encoders.muse.encoder import MUSE_LANGUAGES, MuseNetwork
from clrelkt.encoders.tokenizer import SentencePieceTokenizer
from clrelkt.training import Recipe, Run, RunSettings, train
from clrelkt.training.recipe import recipe_from_json

DOCUMENTS, PASSAGES, CHARACTERS = 5, 2, 150
LANGUAGES = ("en", "de", "ru")
WIDTH, TEXT = 24, 32

Need = Callable[[Path | None, str], Path]

_BROWSER_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)


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


OpenBrowser = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="session")
def open_browser() -> OpenBrowser:
    """Return ``open_browser(*flags)``: a real Chromium without a window while its block runs.

    A test is skipped where there is none, and fails where CI should have installed it.
    """
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if not all(found.values()):
        advice = "install a browser to test pages in: apt-get install chromium chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(advice)
        pytest.skip(advice)
    webdriver = pytest.importorskip("selenium.webdriver")

    @contextmanager
    def opened(*flags: str) -> Iterator[Any]:
        options = webdriver.ChromeOptions()
        options.binary_location = found["chromium"]
        for flag in (*_BROWSER_FLAGS, *flags):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(found["chromedriver"])
        driver = webdriver.Chrome(options=options, service=service)
        try:
            yield driver
        finally:
            driver.quit()

    return opened


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
    encoder = load_encoder("muse")
    assert isinstance(encoder, MuseEncoder)
    return encoder


@pytest.fixture(scope="session")
def muse_8bit(muse_8bit_file: Path) -> MuseEncoder:
    """Mind that all tests share it: none may change its parameters."""
    pytest.importorskip("onnx")
    encoder = load_encoder("muse-8bit")
    assert isinstance(encoder, MuseEncoder)
    return encoder


@pytest.fixture(scope="session")
def tiny_corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The beginnings of ten passages of the bundled corpus, and their 20 questions.

    The questions are in English, German and Russian. Their answers are not the true ones, which
    are cut off: training looks at none.
    """
    folder = tmp_path_factory.mktemp("corpus") / "tiny"
    folder.mkdir()
    bundled = resources.files("clrelkt.corpora") / "bundled"
    for language in LANGUAGES:
        whole = json.loads((bundled / f"bundled.{language}.json").read_text(encoding="utf-8"))
        part = whole | {"data": [_shortened(article) for article in whole["data"][:DOCUMENTS]]}
        path = folder / f"tiny.{language}.json"
        path.write_text(json.dumps(part, ensure_ascii=False), encoding="utf-8")
    return folder


def _shortened(article: dict[str, Any]) -> dict[str, Any]:
    paragraphs = []
    for paragraph in article["paragraphs"][:PASSAGES]:
        context = paragraph["context"][:CHARACTERS]
        answers = [{"text": context.split()[0], "answer_start": 0}]
        questions = [question | {"answers": answers} for question in paragraph["qas"]]
        paragraphs.append({"context": context, "qas": questions})
    return article | {"paragraphs": paragraphs}


@pytest.fixture(scope="session")
def tiny_corpus(tiny_corpus_folder: Path) -> Corpus:
    return load_corpus(tiny_corpus_folder)


@pytest.fixture(scope="session")
def tiny_encoder_folder(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Corpus) -> Path:
    """A random network of mUSE's form, with about 600 pieces and narrow layers, saved whole."""
    texts = [question.text for question in tiny_corpus.questions]
    texts += [passage.text for passage in tiny_corpus.passage_by_id.values()]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=600,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    tokenizer = SentencePieceTokenizer(model.getvalue())
    encoder = MuseEncoder(
        MuseNetwork(_tensors(tokenizer.pieces)),
        tokenizer,
        EncoderIdentity("tiny", "tiny", "made at random", MUSE_LANGUAGES),
    )
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    encoder.save(folder)
    return folder


def _tensors(rows: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int, scale: float) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * scale

    token = WIDTH + 3 * 256
    tensors = {
        "embedding": normal(rows, WIDTH, scale=1),
        "projection": normal(WIDTH, 768, scale=0.3),
        "projection_bias": normal(768, scale=0.1),
        "branch_gain": 1 + normal(768, scale=0.1),
        "branch_bias": normal(768, scale=0.1),
        "convolution_bias_1": normal(768, scale=0.1),
        "convolution_bias_2": normal(768, scale=0.1),
        "token_gain": 1 + normal(token, scale=0.1),
        "token_bias": normal(token, scale=0.01),
        "token_linear": normal(token, TEXT, scale=token**-0.5),
        "token_linear_bias": normal(TEXT, scale=0.1),
        "hidden_0": normal(TEXT, TEXT, scale=0.3),
        "hidden_1": normal(TEXT, TEXT, scale=0.3),
        "hidden_2": normal(TEXT, TEXT, scale=0.3),
        "hidden_3": normal(TEXT, TEXT, scale=0.1),
        "shortcut_1": normal(TEXT, TEXT, scale=0.3),
        "shortcut_3": normal(TEXT, TEXT, scale=0.1),
    }
    for size in (2, 3, 5):
        for layer in (1, 2):
            name = f"convolution_{layer}_window_{size}"
            tensors[name] = normal(size, 256, 256, scale=(256 * size) ** -0.5)
    return tensors


@pytest.fixture
def tiny_encoder(tiny_encoder_folder: Path) -> MuseEncoder:
    encoder = load_encoder(tiny_encoder_folder)
    assert isinstance(encoder, MuseEncoder)
    return encoder


@pytest.fixture
def tiny_table(tiny_corpus_folder: Path, tiny_encoder_folder: Path) -> dict[str, Any]:
    """A recipe of three stages, as plain values that a test may change."""
    return copy.deepcopy(_table(tiny_corpus_folder, tiny_encoder_folder))


def _table(corpus: Path, encoder: Path) -> dict[str, Any]:
    dev = {"times_per_epoch": 2, "patience": 5}
    return {
        "name": "tiny",
        "corpus": str(corpus),
        "encoder": str(encoder),
        "evaluation": {"pool": "passage"},
        "stages": [
            {
                "name": "warm-up",
                "method": {"kind": "warm-up", "margin": 0.24, "bm25_epochs": 1},
                "optimisation": {"epochs": 2, "batch": 16, "learning_rate": 1e-4},
                "dev": dev,
            },
            {
                "name": "teacher",
                "start": "warm-up",
                "method": {
                    "kind": "teacher",
                    "negatives": {"hard": 2, "semi_hard": 2, "granularity": "passage"},
                },
                "optimisation": {"epochs": 2, "batch": 16, "learning_rate": 1e-4},
                "dev": dev,
            },
            {
                "name": "student",
                "start": "teacher",
                "method": {
                    "kind": "transfer",
                    "weights": {"question": 0.1, "document": 1.0, "document_question": 0.1},
                },
                "optimisation": {
                    "epochs": 3,
                    "batch": 8,
                    "batch_tokens": 700,
                    "learning_rate": 1e-4,
                },
                "dev": dev | {"keep": "best-or-start"},
            },
        ],
    }


@pytest.fixture
def tiny_recipe(tiny_table: dict[str, Any]) -> Recipe:
    return recipe_from_json(tiny_table)


TrainTiny = Callable[..., Run]


@pytest.fixture(scope="session")
def train_tiny(tiny_corpus_folder: Path, tiny_encoder_folder: Path) -> TrainTiny:
    """Return ``train_tiny(folder, **settings)``, which carries out the tiny recipe whole."""
    recipe = recipe_from_json(_table(tiny_corpus_folder, tiny_encoder_folder))

    def run(folder: Path, recipe: Recipe = recipe, **settings: Any) -> Run:
        usual: dict[str, Any] = {"save_form": "whole", "device": "cpu", "progress": False}
        return train(recipe, RunSettings(folder, **usual | settings))

    return run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, train_tiny: TrainTiny) -> Run:
    """A complete run of the tiny recipe with seed 0. No test may change its folder."""
    return train_tiny(tmp_path_factory.mktemp("finished") / "run")
