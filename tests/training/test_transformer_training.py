"""Every stage, and added languages, on a small XLM-R with a unigram vocabulary."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.transformer_models import save_model

from clrelkt.corpora import Corpus
from clrelkt.corpora.pairs import SentencePairs
from clrelkt.encoders import TransformerOptions, load_encoder
from clrelkt.encoders.transformer.encoder import TransformerEncoder
from clrelkt.encoders.vocabulary import VocabularySettings, learn_pieces
from clrelkt.errors import EncoderError, SettingsError
from clrelkt.training import Run, RunSettings, train
from clrelkt.training.languages import LanguageSettings, add_languages
from clrelkt.training.recipe import recipe_from_json

pytestmark = [
    pytest.mark.filterwarnings(rf"ignore:::{library}(\..*)?")
    for library in ("sentence_transformers", "transformers", "huggingface_hub", "torch.jit")
]

MAX_LENGTH = 48
WORDS = {
    "the cat sleeps": "η γάτα κοιμάται",
    "a dog runs": "ένας σκύλος τρέχει",
    "the house is old": "το σπίτι είναι παλιό",
    "rain falls": "πέφτει βροχή",
    "a bird sings": "ένα πουλί τραγουδά",
    "we eat bread": "τρώμε ψωμί",
    "the sea is blue": "η θάλασσα είναι γαλάζια",
}
ENGLISH, GREEK = tuple(WORDS), tuple(WORDS.values())


@pytest.fixture(scope="module")
def folder(tiny_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random XLM-R with prompts, whose passages are longer than it can read at once."""
    texts = [question.text for question in tiny_corpus.questions] + list(ENGLISH)
    texts += [passage.text for passage in tiny_corpus.passage_by_id.values()]
    place = tmp_path_factory.mktemp("xlm-r")
    save_model(place / "plain", texts=texts, pieces=500)
    options = TransformerOptions(
        question_prompt="query: ",
        passage_prompt="passage: ",
        max_length=MAX_LENGTH,
        languages=("de", "en", "ru"),
    )
    load_encoder(place / "plain", options).save(place / "encoder")
    return place / "encoder"


def table_of(tiny_table: dict[str, Any], folder: Path) -> dict[str, Any]:
    table = copy.deepcopy(tiny_table) | {"encoder": str(folder)}
    table["stages"].append(
        {
            "name": "contrastive",
            "start": "student",
            "method": {"kind": "contrastive", "anchor": 0.1, "english": 0.1},
            "optimisation": {"epochs": 2, "batch": 8, "learning_rate": 1e-4},
            "dev": {"times_per_epoch": 1, "patience": 5},
        }
    )
    for stage in table["stages"]:
        stage["optimisation"]["learning_rate"] = 1e-3
        stage["dev"]["keep"] = "best"
    return table


@pytest.fixture(scope="module")
def start(folder: Path) -> TransformerEncoder:
    encoder = load_encoder(folder)
    assert isinstance(encoder, TransformerEncoder)
    return encoder


def test_all_stages(
    tiny_table: dict[str, Any], folder: Path, start: TransformerEncoder, tmp_path: Path
) -> None:
    recipe = recipe_from_json(table_of(tiny_table, folder))
    run: Run = train(recipe, RunSettings(tmp_path / "run", device="cpu", progress=False))
    names = ["warm-up", "teacher", "student", "contrastive"]
    assert [name for name in run.results if name in names] == names
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    for name in names:
        losses = [line["loss"] for line in log if line["stage"] == name and line.get("loss")]
        assert losses[-1] < losses[0], name
    # Unused rows of the vocabulary are as they were, and every matrix has learnt.
    last = run.encoder
    assert isinstance(last, TransformerEncoder)
    moved = {
        name
        for (name, parameter), (_, was) in zip(
            last.named_parameters(), start.named_parameters(), strict=True
        )
        if not torch.equal(parameter, was)
    }
    assert len(moved) == sum(1 for _ in start.named_parameters())
    same = (last.embedding == start.embedding).all(1)
    assert 0 < int(same.sum()) < len(same)
    # What is saved opens without clrelkt, and gives the vectors that were measured.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        peer = SentenceTransformer(str(tmp_path / "run/encoders/contrastive"), device="cpu")
    texts = ["Who sleeps?", "Где кошка?", "the cat"]
    assert np.abs(peer.encode_query(texts) - last.encode(texts, "question")).max() < 1e-5
    described = json.loads((tmp_path / "run/encoders/student/clrelkt.json").read_text())
    assert described["kind"] == "transformer"
    assert described["languages"] == ["de", "en", "ru"]


def test_passages_are_longer_than_the_limit(tiny_corpus: Corpus, start: TransformerEncoder) -> None:
    lengths = start.tokenize(
        [passage.text for passage in tiny_corpus.passage_by_id.values()]
    ).lengths
    assert int(lengths.max()) > MAX_LENGTH


def test_a_delta_is_refused_before_anything_is_done(
    tiny_table: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    recipe = recipe_from_json(table_of(tiny_table, folder))
    with pytest.raises(SettingsError, match="Use whole"):
        train(recipe, RunSettings(tmp_path / "run", save_form="delta", progress=False))
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def pairs() -> SentencePairs:
    rng = np.random.default_rng(0)
    drawn = [rng.permutation(len(ENGLISH))[:3] for _ in range(150)]
    return SentencePairs(
        "el",
        tuple(", ".join(ENGLISH[n] for n in chosen) for chosen in drawn),
        tuple(", ".join(GREEK[n] for n in chosen) for chosen in drawn),
        ("x",) * len(drawn),
        ("sentences",) * len(drawn),
    )


class TestAddedLanguages:
    def test_greek_is_learnt_and_english_stays(
        self, start: TransformerEncoder, folder: Path, pairs: SentencePairs, tmp_path: Path
    ) -> None:
        settings = LanguageSettings(pieces=60, epochs=20, batch=32, learning_rate=3e-2)
        addition = add_languages(load_encoder(folder), {"el": pairs}, settings)
        report = addition.reports["el"]
        assert report.pieces > 10
        assert report.before.unknown > 0.4 > 0.05 > report.after.unknown
        assert report.after.translation.to_english > report.before.translation.to_english
        encoder = addition.encoder
        assert isinstance(encoder, TransformerEncoder)
        texts = list(pairs.english[:20])
        assert encoder.tokenizer(texts) == start.tokenizer(texts)
        assert np.array_equal(encoder.encode(texts), start.encode(texts))
        rows = start.embedding.shape[0]
        assert torch.equal(encoder.embedding[:rows], start.embedding)
        assert encoder.languages == {"de", "el", "en", "ru"}
        addition.save(tmp_path / "greek")
        again = load_encoder(tmp_path / "greek")
        for kind in ("question", "passage"):
            found = again.encode(GREEK, kind)
            assert np.array_equal(found, encoder.encode(GREEK, kind))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from sentence_transformers import SentenceTransformer

            peer = SentenceTransformer(str(tmp_path / "greek"), device="cpu")
        assert np.abs(peer.encode_document(list(GREEK)) - again.encode(GREEK)).max() < 1e-5

    def test_it_grows_twice(self, start: TransformerEncoder, pairs: SentencePairs) -> None:
        new = learn_pieces(start.tokenizer, {"el": pairs.other}, VocabularySettings(pieces=40))
        half = len(new) // 2
        first = start.tokenizer.grown(new.without(range(half, len(new))))
        twice = first.grown(new.without(range(half)))
        once = start.tokenizer.grown(new)
        assert twice(pairs.other) == once(pairs.other)
        assert twice.pieces == start.tokenizer.pieces + len(new)

    def test_other_vocabularies_are_refused(self, pairs: SentencePairs, tmp_path: Path) -> None:
        encoder = load_encoder(save_model(tmp_path / "bert", "bert"))
        with pytest.raises(EncoderError, match=r"of kind WordPiece cannot .* XLM-R"):
            add_languages(encoder, {"el": pairs}, LanguageSettings(pieces=40))


def transfer_alone(tiny_table: dict[str, Any], student: Path, teacher: Path) -> dict[str, Any]:
    table = table_of(tiny_table, student)
    table["stages"] = [stage for stage in table["stages"] if stage["name"] == "student"]
    del table["stages"][0]["start"]
    table["stages"][0]["method"]["teacher"] = str(teacher)
    return table


class TestAnotherTeacher:
    def test_the_student_comes_nearer(
        self, tiny_table: dict[str, Any], folder: Path, tiny_corpus: Corpus, tmp_path: Path
    ) -> None:
        teacher = save_model(tmp_path / "teacher", "bert", seed=5)
        recipe = recipe_from_json(transfer_alone(tiny_table, folder, teacher))
        run = train(recipe, RunSettings(tmp_path / "run", device="cpu", progress=False))
        texts = [passage.text for passage in tiny_corpus.passage_by_id.values()]
        wanted = load_encoder(teacher).encode(texts)
        before, after = (
            (one.encode(texts) * wanted).sum(1).mean()
            for one in (load_encoder(folder), run.encoder)
        )
        assert after > before + 0.05

    def test_another_dimension_is_refused_with_what_to_do(
        self, tiny_table: dict[str, Any], folder: Path, tmp_path: Path
    ) -> None:
        recipe = recipe_from_json(transfer_alone(tiny_table, folder, Path("muse")))
        message = r"'muse' makes vectors of 512 numbers, the student of 32\. .*--dimension 512"
        with pytest.raises(SettingsError, match=message):
            train(recipe, RunSettings(tmp_path / "run", device="cpu", progress=False))
        assert not (tmp_path / "run/run.json").exists()
