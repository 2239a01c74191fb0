from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clrelkt.corpora.pairs import SentencePairs, drop_shared, find_pairs
from clrelkt.encoders import MuseEncoder, load_encoder
from clrelkt.encoders.ragged import RaggedBatch
from clrelkt.errors import DataError, SettingsError, StorageError, TrainingError
from clrelkt.training.languages import (
    LanguageAddition,
    LanguageSettings,
    add_languages,
)
from clrelkt.training.refinement import RefinementSettings, Translations, refine

SMALL = LanguageSettings(pieces=400, epochs=2, batch=256)


@pytest.fixture(scope="module")
def greek(data_folder: Path) -> SentencePairs:
    pairs = find_pairs([data_folder / "parallel"], ["el"])["el"]
    sentences = [n for n, source in enumerate(pairs.sources) if source == "tatoeba"]
    return pairs.select(sentences[:1500])


@pytest.fixture(scope="module")
def known(data_folder: Path) -> dict[str, list[str]]:
    codes = ["ja", "ko", "de", "th"]
    found = find_pairs([data_folder / "parallel"], codes)
    return {code: list(found[code].other[:300]) for code in codes}


@pytest.fixture(scope="module")
def addition(greek: SentencePairs, known: dict[str, list[str]]) -> LanguageAddition:
    protected = [text for texts in known.values() for text in texts]
    return add_languages(load_encoder("muse"), {"el": greek}, SMALL, protected=protected)


def some_pairs(count: int, language: str = "el") -> SentencePairs:
    return SentencePairs(
        language,
        tuple(f"word {n}" for n in range(count)),
        tuple(f"λέξη {n}" for n in range(count)),
        ("x",) * count,
        ("sentences",) * count,
    )


class TestAddition:
    def test_translations_are_found_that_were_not(self, addition: LanguageAddition) -> None:
        report = addition.reports["el"]
        assert report.before.translation.pairs == 500
        assert report.before.translation.to_english < 0.05
        assert report.after.translation.to_english > 0.15
        assert report.after.unknown < 0.3 * report.before.unknown
        assert report.after.tokens_per_word < 0.8 * report.before.tokens_per_word
        assert sum(report.pairs.values()) <= 1000

    def test_what_it_knew_is_as_before(
        self,
        addition: LanguageAddition,
        muse: MuseEncoder,
        known: dict[str, list[str]],
        greek: SentencePairs,
    ) -> None:
        for texts in (*known.values(), greek.english[:300]):
            assert addition.encoder.tokenizer(texts) == muse.tokenizer(texts)
            assert np.array_equal(addition.encoder.encode(texts[:20]), muse.encode(texts[:20]))

    def test_only_new_rows_differ(self, addition: LanguageAddition, muse: MuseEncoder) -> None:
        assert isinstance(addition.encoder, MuseEncoder)
        got = dict(addition.encoder.network.named_parameters())
        for name, expected in muse.network.named_parameters():
            if name == "embedding":
                assert torch.equal(got[name][:128_000], expected[:128_000])
            else:
                assert torch.equal(got[name], expected)
        assert all(parameter.requires_grad for parameter in got.values())
        assert addition.encoder.languages == muse.languages | {"el"}

    def test_it_is_saved_with_its_record(self, addition: LanguageAddition, tmp_path: Path) -> None:
        folder = tmp_path / "greek"
        addition.save(folder)
        loaded = load_encoder(folder)
        texts = ["η γάτα κοιμάται", "the cat sleeps"]
        assert np.array_equal(loaded.encode(texts), addition.encoder.encode(texts))
        record = json.loads((folder / "languages.json").read_text())
        assert record["languages"]["el"]["pairs"]["tatoeba"] > 900
        assert record["settings"]["pieces"] == 400
        assert record["environment"]["packages"]["sentencepiece"]
        (tmp_path / "full").mkdir()
        (tmp_path / "full/thesis.txt").write_text("precious")
        with pytest.raises(StorageError, match="no encoder"):
            addition.save(tmp_path / "full")

    def test_seed_and_pairs_decide_everything(self, greek: SentencePairs) -> None:
        few = greek.select(range(120))
        settings = LanguageSettings(pieces=100, epochs=1, batch=32)
        runs = [
            add_languages(load_encoder("muse"), {"el": few}, settings, seed=1) for _ in range(2)
        ]
        assert torch.equal(runs[0].encoder.embedding, runs[1].encoder.embedding)
        assert runs[0].reports == runs[1].reports

    def test_extra_pairs_are_trained_on_but_never_held_out(self, greek: SentencePairs) -> None:
        few, extra = greek.select(range(300)), greek.select(range(200, 400))
        settings = LanguageSettings(pieces=150, epochs=0)
        report = add_languages(
            load_encoder("muse"), {"el": few}, settings, extra={"el": extra}
        ).reports["el"]
        assert 100 <= report.extra <= 200
        assert report.before.translation.pairs == 100
        assert report.pairs["tatoeba"] <= 200 + report.extra


class TestRefusals:
    def test_languages_that_it_knows(self, muse: MuseEncoder) -> None:
        with pytest.raises(SettingsError, match="knows de already"):
            add_languages(muse, {"de": some_pairs(500, "de")})

    def test_no_language(self, muse: MuseEncoder) -> None:
        with pytest.raises(SettingsError, match="no language"):
            add_languages(muse, {})

    def test_too_few_pairs(self, muse: MuseEncoder) -> None:
        with pytest.raises(DataError, match="'el': 99 sentence pairs; at least 100"):
            add_languages(muse, {"el": some_pairs(99)})

    def test_a_language_without_new_pieces(self, muse: MuseEncoder) -> None:
        pairs = SentencePairs(
            "id",
            tuple(f"the cat number {n}" for n in range(120)),
            tuple(f"kucing nomor {n}" for n in range(120)),
            ("x",) * 120,
            ("sentences",) * 120,
        )
        with pytest.raises(TrainingError, match="no new pieces were found for id"):
            add_languages(muse, {"id": pairs}, LanguageSettings(pieces=50))

    def test_a_learning_rate_that_leads_nowhere(self, greek: SentencePairs) -> None:
        settings = LanguageSettings(pieces=100, epochs=1, batch=32, learning_rate=1e38)
        with pytest.raises(TrainingError, match="Lower the learning rate"):
            add_languages(load_encoder("muse"), {"el": greek.select(range(120))}, settings)

    @pytest.mark.parametrize(
        "values",
        [
            {"batch": 0},
            {"epochs": -1},
            {"learning_rate": 0.0},
            {"temperature": math.nan},
            {"closeness": -1.0},
            {"warm_up": 1.0},
            {"pieces": 0},
            {"scope": "some"},
            {"start": "nowhere"},
            {"caps": {"novels": 3}},
            {"weights": {"docs": -1.0}},
        ],
    )
    def test_settings(self, values: dict[str, object]) -> None:
        with pytest.raises(SettingsError):
            LanguageSettings(**values)  # type: ignore[arg-type]


REFINEMENT = RefinementSettings(epochs=6, batch=32, learning_rate=1e-3, anchor=50.0)
KNOWN = ("The house is old.", "Der Hund schläft.", "Где находится вокзал?")


@pytest.fixture(scope="module")
def refined(muse: MuseEncoder, greek: SentencePairs) -> tuple[MuseEncoder, list[int]]:
    steps: list[int] = []
    pairs = Translations(greek.english[:100], greek.other[:100], [1.0] * 100)
    found = refine(muse, muse, pairs, KNOWN, REFINEMENT, advance=steps.append)
    return found, steps


class TestRefinement:
    """All parameters learn; what was known stays near where it was."""

    def test_translations_come_nearer(
        self,
        muse: MuseEncoder,
        greek: SentencePairs,
        refined: tuple[MuseEncoder, list[int]],
    ) -> None:
        english = muse.encode(greek.english[:100])
        before, after = (
            float((encoder.encode(greek.other[:100]) * english).sum(1).mean())
            for encoder in (muse, refined[0])
        )
        assert after > before + 0.2

    def test_known_texts_stay_near(
        self, muse: MuseEncoder, refined: tuple[MuseEncoder, list[int]]
    ) -> None:
        cosines = (refined[0].encode(KNOWN) * muse.encode(KNOWN)).sum(1)
        assert cosines.min() > 0.95
        assert cosines.max() < 1 - 1e-6

    def test_every_step_is_told(self, refined: tuple[MuseEncoder, list[int]]) -> None:
        assert refined[1] == [1] * 24

    def test_the_same_seed_gives_the_same_bits(
        self, muse: MuseEncoder, greek: SentencePairs
    ) -> None:
        settings = replace(REFINEMENT, epochs=1)
        pairs = Translations(greek.english[:80], greek.other[:80], [1.0] * 80)
        first, second = (
            refine(muse, muse, pairs, KNOWN, settings, seed=4).encode(greek.other[:9])
            for _ in range(2)
        )
        assert np.array_equal(first, second)

    def test_without_epochs_nothing_changes(self, muse: MuseEncoder, greek: SentencePairs) -> None:
        pairs = Translations(greek.english, greek.other, [1.0] * len(greek))
        assert refine(muse, muse, pairs, (), replace(REFINEMENT, epochs=0)) is muse

    def test_a_learning_rate_that_leads_nowhere(
        self, muse: MuseEncoder, greek: SentencePairs
    ) -> None:
        settings = RefinementSettings(epochs=1, learning_rate=1e30, batch=64)
        pairs = Translations(greek.english[:100], greek.other[:100], [1.0] * 100)
        with pytest.raises(TrainingError, match="Lower the learning rate"):
            refine(muse, muse, pairs, KNOWN, settings)

    @pytest.mark.parametrize(
        "values", [{"epochs": -1}, {"epochs": 1, "batch": 1}, {"epochs": 1, "anchor": -1.0}]
    )
    def test_settings(self, values: dict[str, float]) -> None:
        with pytest.raises(SettingsError):
            RefinementSettings(**values)  # type: ignore[arg-type]


def test_extra_pairs_lose_what_is_held_out() -> None:
    pairs, held = some_pairs(10), some_pairs(3)
    assert drop_shared(pairs, held).english == pairs.english[3:]


def test_frozen_kernels_change_no_other_gradient(muse: MuseEncoder) -> None:
    ids = muse.tokenize(["the cat sat on the mat", "a dog"]).token_ids
    found = []
    for frozen in (False, True):
        encoder = muse.compact(ids)
        if frozen:
            encoder.requires_grad_(False)
            encoder.network.embedding.requires_grad_(True)
        batch: RaggedBatch = encoder.tokenize(["the cat sat on the mat", "a dog"])
        encoder(batch)[:, :7].sum().backward()
        assert encoder.network.embedding.grad is not None
        found.append(encoder.network.embedding.grad)
        assert (encoder.network.get_parameter("convolution_2_window_3").grad is None) is frozen
    assert torch.equal(found[0], found[1])
