"""A reader that is small enough to learn a toy corpus in seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clrelkt.corpora import load_corpus
from clrelkt.corpora.model import Corpus
from clrelkt.reader import (
    Reader,
    ReaderSettings,
    ReaderTraining,
    TrainingSettings,
    WindowSettings,
    load_for_training,
    load_reader,
    train_reader,
    training_pairs,
)

PEOPLE = ("Ada", "Bo", "Cy", "Dee", "Eli", "Flo")
CITIES = ("Rome", "Oslo", "Lima", "Bonn")
CRAFTS = ("bread", "boats", "clocks", "glass")
WINDOWS = WindowSettings(max_length=40, stride=6, max_question_tokens=10)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # Matrices this small only wait for a second thread.
    yield
    torch.set_num_threads(before)


def context_of(person: str, number: int) -> str:
    city, craft = CITIES[number % len(CITIES)], CRAFTS[(number // 2) % len(CRAFTS)]
    return f"{person} lives in {city} . There {person} makes {craft} , day by day ."


def toy_squad() -> dict[str, Any]:
    """Two questions a paragraph, over every person and a few cities and crafts."""
    paragraphs = []
    for number, person in enumerate(PEOPLE * 4):
        context = context_of(person, number)
        city = CITIES[number % len(CITIES)]
        craft = CRAFTS[(number // 2) % len(CRAFTS)]
        asked = ((f"Where does {person} live ?", city), (f"What does {person} make ?", craft))
        qas = [
            {
                "id": f"{number}-{place}",
                "question": question,
                "answers": [{"text": answer, "answer_start": context.index(answer)}],
            }
            for place, (question, answer) in enumerate(asked)
        ]
        paragraphs.append({"context": context, "qas": qas})
    return {"data": [{"title": "people", "paragraphs": paragraphs}]}


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy.en.json"
    path.write_text(json.dumps(toy_squad()), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def toy_corpus(toy_file: Path) -> Corpus:
    return load_corpus(toy_file)


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory, toy_file: Path) -> Path:
    """A language model without a head for questions, and its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("base")
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    text = json.dumps(toy_squad()).replace('"', " ")
    splitter = pre_tokenizers.Whitespace()
    words = sorted({word for word, _ in splitter.pre_tokenize_str(text)})
    vocabulary = {word: row for row, word in enumerate([*marks, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.02,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.15,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    return folder


def toy_settings(**changes: Any) -> TrainingSettings:
    values: dict[str, Any] = {"epochs": 80, "learning_rate": 3e-3, "batch": 16, "windows": WINDOWS}
    return TrainingSettings(**values | changes)


def start_training(
    base: Path, corpus: Corpus, folder: Path, settings: TrainingSettings, **around: Any
) -> Reader:
    """Train a reader from ``base`` in ``folder``; return it."""
    learner = load_for_training(str(base), ReaderSettings(windows=WINDOWS), seed=3)
    described = {"model": "base", "corpus": corpus.name}
    training = ReaderTraining(folder, described, settings, seed=3, **around)
    train_reader(learner, training_pairs(corpus), training)
    return learner


@pytest.fixture(scope="session")
def trained_folder(
    tmp_path_factory: pytest.TempPathFactory, base_model: Path, toy_corpus: Corpus
) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "reader"
    start_training(base_model, toy_corpus, folder, toy_settings())
    return folder


@pytest.fixture(scope="session")
def trained(trained_folder: Path) -> Reader:
    return load_reader(str(trained_folder), ReaderSettings(windows=WINDOWS))
