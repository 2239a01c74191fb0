"""Translation models that are small enough to learn a few sentences by heart in seconds."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch

GERMAN = {
    "Wer macht Honig?": "Who makes honey?",
    "Woraus ist Stahl?": "What is steel made of?",
    "Wer legt Eier?": "Who lays eggs?",
    "Welches Metall rostet?": "Which metal rusts?",
    "Was?": "What?",
}
FINNISH = {"Kuka tekee hunajaa?": "Who makes honey?", "Radio?": "Which metal rusts?"}
GERMAN_RADIO = {"Radio?": "Who makes honey?", "Wer legt Eier?": "Who lays eggs?"}
SIZES: Mapping[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 40,
    "dropout": 0.0,
}


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrices this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Marian model from German that knows ``GERMAN`` by heart."""
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    folder = tmp_path_factory.mktemp("marian")
    spm, pieces = _pieces(folder)
    vocabulary = _vocabulary(folder, ["</s>", "<unk>", *pieces, "<pad>"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It asks for sacremoses, which it can do without.
        tokenizer = MarianTokenizer(spm, spm, str(vocabulary))
    last = len(tokenizer) - 1
    torch.manual_seed(0)
    model = MarianMTModel(
        MarianConfig(  # type: ignore[call-arg]
            vocab_size=last + 1,
            pad_token_id=last,
            decoder_start_token_id=last,
            eos_token_id=0,
            bad_words_ids=None,
            **SIZES,
        )
    )
    # As the checkpoints that people use have it.
    model.generation_config.forced_eos_token_id = 0
    model.generation_config.max_length = 40
    model.generation_config.num_beams = 2
    _learn(model, [_example(tokenizer, GERMAN)])
    return _saved(model, tokenizer, folder)


@pytest.fixture(scope="session")
def m2m100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An M2M100 model that translates "Radio?" one way from German, another from Finnish."""
    from transformers import M2M100Tokenizer

    folder = tmp_path_factory.mktemp("m2m100")
    spm, pieces = _pieces(folder)
    vocabulary = _vocabulary(folder, ["<s>", "<pad>", "</s>", "<unk>", *pieces])
    tokenizer = M2M100Tokenizer(str(vocabulary), spm, src_lang="de", tgt_lang="en")
    rows = len(tokenizer.encoder) + len(tokenizer.lang_code_to_id)
    return _multilingual(folder, tokenizer, rows, {"de": GERMAN_RADIO, "fi": FINNISH}, "en")


@pytest.fixture(scope="session")
def nllb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``m2m100``, with NLLB's tokenizer and codes."""
    from transformers import NllbTokenizer

    folder = tmp_path_factory.mktemp("nllb")
    letters = sorted({letter for text in _texts() for letter in text} - {" "} | {"▁"})
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *letters]
    tokenizer = NllbTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[],
        src_lang="deu_Latn",
        tgt_lang="eng_Latn",
    )
    examples = {"deu_Latn": GERMAN_RADIO, "fin_Latn": FINNISH}
    return _multilingual(folder, tokenizer, len(tokenizer), examples, "eng_Latn")


def _multilingual(
    folder: Path, tokenizer: Any, rows: int, texts: Mapping[str, Mapping[str, str]], target: str
) -> Path:
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    torch.manual_seed(0)
    layers: dict[str, Any] = {"encoder_layerdrop": 0, "decoder_layerdrop": 0}
    model = M2M100ForConditionalGeneration(M2M100Config(vocab_size=rows, **SIZES, **layers))
    examples = []
    for language, pairs in texts.items():
        tokenizer.src_lang, tokenizer.tgt_lang = language, target
        examples.append(_example(tokenizer, pairs))
    _learn(model, examples)
    return _saved(model, tokenizer, folder)


def _texts() -> list[str]:
    sides = (GERMAN, FINNISH, GERMAN_RADIO)
    return [text for side in sides for pair in side.items() for text in pair]


def _pieces(folder: Path) -> tuple[str, list[str]]:
    path = folder / "spm.model"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_texts()),
        model_prefix=str(path.with_suffix("")),
        vocab_size=80,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        bos_id=-1,
        eos_id=-1,
        unk_id=0,
    )
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return str(path), [model.id_to_piece(row) for row in range(1, model.get_piece_size())]


def _vocabulary(folder: Path, tokens: list[str]) -> Path:
    path = folder / "vocab.json"
    path.write_text(json.dumps({token: row for row, token in enumerate(tokens)}), "utf-8")
    return path


def _example(tokenizer: Any, pairs: Mapping[str, str]) -> dict[str, torch.Tensor]:
    batch = tokenizer(list(pairs), return_tensors="pt", padding=True)
    target = tokenizer(text_target=list(pairs.values()), return_tensors="pt", padding=True)
    labels = target["input_ids"]
    labels[labels == tokenizer.pad_token_id] = -100
    return {**batch, "labels": labels}


def _learn(model: Any, examples: list[dict[str, torch.Tensor]]) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    with one_thread():
        for _ in range(300):
            loss = sum(model(**example).loss for example in examples) / len(examples)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if loss < 0.02:
                return
    pytest.fail(f"the model learnt too little: loss {loss}")


def _saved(model: Any, tokenizer: Any, folder: Path) -> Path:
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
