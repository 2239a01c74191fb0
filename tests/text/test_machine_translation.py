from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, MarianConfig
from transformers.models.m2m_100.tokenization_m2m_100 import M2M100Tokenizer
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

from clrelkt.corpora.languages import ISO_639_1
from clrelkt.errors import SettingsError, UnknownNameError
from clrelkt.text.machine_translation import (
    _FLORES_CODES,
    GenerationSettings,
    TranslationModels,
)

HONEY, METAL = "Who makes honey?", "Which metal rusts?"


def tokenizer_of(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It asks for sacremoses, which it can do without.
        return AutoTokenizer.from_pretrained(folder)


def test_each_text_gets_its_own_translation(marian: Path) -> None:
    model = TranslationModels(str(marian)).open("de")
    texts = ["Was?", "Welches Metall rostet?", "Wer legt Eier?", "Wer macht Honig?"]
    expected = ["What?", METAL, "Who lays eggs?", HONEY]
    assert model(texts) == [(text, None) for text in expected]
    assert [model([text])[0][0] for text in texts] == expected


def test_the_record_says_what_made_a_translation(marian: Path) -> None:
    import transformers

    record = TranslationModels(str(marian)).open("de").record
    assert record == {
        "name": str(marian),
        "revision": None,
        "settings": {"beams": 2, "max_new_tokens": 128},
        "transformers": transformers.__version__,
    }
    settings = GenerationSettings(beams=3, max_new_tokens=9)
    asked = TranslationModels(str(marian), settings=settings).open("de").record
    assert asked["settings"] == {"beams": 3, "max_new_tokens": 9}


@pytest.mark.parametrize("fixture", ["m2m100", "nllb"])
def test_the_languages_are_told_to_the_model(fixture: str, request: pytest.FixtureRequest) -> None:
    models = TranslationModels(str(request.getfixturevalue(fixture)))
    assert models.open("de")(["Radio?"]) == [(HONEY, None)]
    assert models.open("fi")(["Radio?"]) == [(METAL, None)]
    assert models.open("fi")(["Radio?", "Kuka tekee hunajaa?"])[1] == (HONEY, None)
    with pytest.raises(SettingsError, match="does not know the language 'aa'"):
        models.open("aa")


def test_a_model_a_language(marian: Path, tmp_path: Path) -> None:
    (tmp_path / "opus-de-en").symlink_to(marian)
    models = TranslationModels(str(tmp_path / "opus-{language}-en"))
    assert models.open("de").record["name"] == str(tmp_path / "opus-de-en")
    assert models.name("fi") == str(tmp_path / "opus-fi-en")
    with pytest.raises(UnknownNameError, match="no translation model") as caught:
        models.open("fi")
    assert "\n" not in str(caught.value)


def test_a_translation_that_the_limit_ends_is_marked(marian: Path) -> None:
    limited = TranslationModels(str(marian), settings=GenerationSettings(max_new_tokens=3))
    (text, flaw), (_, short) = limited.open("de")(["Woraus ist Stahl?", "Was?"])
    assert flaw == "cut short"
    assert text
    assert "What is steel made of?".startswith(text)
    tokens = tokenizer_of(marian)(text_target="What?")["input_ids"]
    assert short == (None if len(tokens) <= 3 else "cut short")


def test_a_question_that_the_model_cannot_read_whole_is_marked(marian: Path) -> None:
    found = TranslationModels(str(marian)).open("de")(["Wer macht Honig? " * 20, "Was?"])
    assert [flaw for _, flaw in found] == ["cut short", None]


def test_an_empty_translation_is_marked(marian: Path, tmp_path: Path) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(marian)
    model.final_logits_bias[0, 0] = 1e4  # It ends at once.
    model.save_pretrained(tmp_path)
    tokenizer_of(marian).save_pretrained(tmp_path)
    assert TranslationModels(str(tmp_path)).open("de")(["Was?"]) == [("", "empty")]


def test_a_model_of_another_type(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}), "utf-8")
    with pytest.raises(SettingsError, match="is of type 'bert'; expected one of marian, m2m_100"):
        TranslationModels(str(tmp_path)).open("de")


@pytest.mark.parametrize("kind", ["no config", "no weights", "damaged config", "cut weights"])
def test_a_folder_that_holds_no_model(kind: str, marian: Path, tmp_path: Path) -> None:
    if kind == "no weights":
        MarianConfig(d_model=8).save_pretrained(tmp_path)
    if kind == "cut weights":
        tokenizer_of(marian).save_pretrained(tmp_path)
        shutil.copy(marian / "config.json", tmp_path)
        whole = (marian / "model.safetensors").read_bytes()
        (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    if kind == "damaged config":
        (tmp_path / "config.json").write_text('{"model_type": ', "utf-8")
    with pytest.raises(UnknownNameError, match="no translation model"):
        TranslationModels(str(tmp_path)).open("de")


@pytest.mark.parametrize("settings", [{"beams": 0}, {"max_new_tokens": 0}])
def test_settings_that_cannot_be(settings: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        GenerationSettings(**settings)


def test_every_code_is_one_of_nllbs_and_of_iso_639_1(m2m100: Path) -> None:
    assert set(_FLORES_CODES) <= ISO_639_1
    assert set(_FLORES_CODES.values()) <= set(FAIRSEQ_LANGUAGE_CODES)
    # What M2M100 has under two letters NLLB mostly has too, under a code that begins alike.
    known = set(M2M100Tokenizer.from_pretrained(m2m100).lang_code_to_id) & set(_FLORES_CODES)
    assert len(known) > 80
