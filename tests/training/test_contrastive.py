"""The contrastive stage: which texts it takes, and that its loss is what it says."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from clrelkt.corpora import Corpus, split_corpus, take_split
from clrelkt.corpora.answer_pairs import AnswerPairs
from clrelkt.corpora.pairs import SentencePairs
from clrelkt.encoders import MuseEncoder
from clrelkt.errors import DataError, SettingsError, TrainingError
from clrelkt.evaluation import EvaluationSettings, RetrievalEvaluator
from clrelkt.objectives import anchor_loss, paired_loss, ranking_loss, reverse_ranking_loss
from clrelkt.training.bank import TextBank, texts_of
from clrelkt.training.checkpoint import Checkpoint
from clrelkt.training.loop import Surroundings, train_stage
from clrelkt.training.methods import prepare
from clrelkt.training.recipe import (
    AnsweredQuestions,
    Contrastive,
    DevSettings,
    Optimisation,
    ParallelPairs,
    Stage,
    Transfer,
    recipe_from_json,
)
from clrelkt.training.stage_method import Material, StageMethod
from clrelkt.training.supplies import Supplies, load_supplies

TEMPERATURE = 0.05
LANGUAGES = ("en", "de", "ru")
PAIRS = SentencePairs(
    "de",
    ("the bees dance", "honey is sweet", "tea is green", "honey is sweet"),
    ("Bienen tanzen", "Honig ist süß", "Tee ist grün", "süß ist der Honig"),
    ("made",) * 4,
    ("sentences",) * 4,
)
ANSWERED = AnswerPairs(
    ("Who dances?", "What is sweet?", "What is it?"),
    ("Bees dance.", "Honey is sweet.", "Honey is sweet."),
)
WANTED = (ParallelPairs(("de",), weight=1.0, held_out=0, share=1.0),)
GIVEN = (AnsweredQuestions("made", weight=1.0, share=1.0),)


@pytest.fixture
def corpus(tiny_corpus: Corpus) -> Corpus:
    """The tiny corpus with passages in German and Russian, made of its questions' words."""
    translated: dict[str, dict[str, str]] = {}
    for code in ("de", "ru"):
        words = " ".join(question.text for question in tiny_corpus.questions_in(code)).split()
        translated[code] = {
            id_: " ".join(words[number * 5 : number * 5 + 12]) + "."
            for number, id_ in enumerate(tiny_corpus.passage_by_id)
        }
    return replace(tiny_corpus, passage_translations=MappingProxyType(translated))


def material_of(
    settings: Contrastive | Transfer, corpus: Corpus, encoder: MuseEncoder, **changes: Any
) -> Material:
    train = split_corpus(corpus).train
    plain = settings
    if isinstance(settings, Contrastive):
        plain = replace(settings, pairs=None, answered=None)
        if not any((plain.questions, plain.sentences, plain.english, plain.translated)):
            plain = replace(plain, questions=1.0)
    supplies = load_supplies(plain, train, LANGUAGES)
    if isinstance(settings, Contrastive):
        supplies = replace(
            supplies,
            pairs=((PAIRS,),) if settings.pairs else (),
            answered=(ANSWERED,) if settings.answered else (),
        )
    questions, candidates = texts_of([corpus])
    bank = TextBank(
        list(dict.fromkeys([*questions, *supplies.question_texts])),
        list(dict.fromkeys([*candidates, *supplies.passage_texts])),
        encoder,
    )
    start = copy.deepcopy(encoder)
    return Material(train, train.questions, bank, start, 0, 0, supplies)


class Texts:
    """Texts to vectors, one at a time, and what a batch's examples mean."""

    def __init__(self, material: Material, encoder: MuseEncoder) -> None:
        self.material = material
        self.passages = list(material.supplies.passages)
        self.documents = list(dict.fromkeys(passage.document_id for passage in self.passages))
        self._encoder = encoder

    def vectors(self, texts: list[str]) -> torch.Tensor:
        parts = [self._encoder(self._encoder.tokenize([text])) for text in texts]
        return torch.cat(parts)

    def questions(self, examples: np.ndarray) -> list[str]:
        return [self.material.questions[number].text for number in examples[:, 0]]

    def gold(self, examples: np.ndarray) -> torch.Tensor:
        ids = [passage.id for passage in self.passages]
        golds = [self.material.questions[number].passage_id for number in examples[:, 0]]
        return torch.tensor([ids.index(str(gold)) for gold in golds])

    def document_of(self) -> torch.Tensor:
        return torch.tensor([self.documents.index(p.document_id) for p in self.passages])


def loss_of(method: StageMethod, material: Material, encoder: MuseEncoder, rows: int) -> Any:
    examples = method.examples(0, encoder)
    examples = examples[:: len(examples) // rows][:rows]
    wanted = method.texts(examples)
    vectors = encoder(material.bank.select(wanted))
    return examples, method.loss(vectors, examples)


@pytest.mark.parametrize("score", ["passage", "best-passage"])
@pytest.mark.parametrize("directions", ["forward", "both"])
def test_questions_are_ranked_against_all_passages(
    corpus: Corpus, tiny_encoder: MuseEncoder, score: Any, directions: Any
) -> None:
    settings = Contrastive(questions=2.0, score=score, directions=directions)
    material = material_of(settings, corpus, tiny_encoder)
    examples, loss = loss_of(prepare(settings, material), material, tiny_encoder, 7)
    texts = Texts(material, tiny_encoder)
    questions = texts.vectors(texts.questions(examples))
    passages = texts.vectors([passage.text for passage in texts.passages])
    gold, document_of = texts.gold(examples), texts.document_of()
    by_document = score == "best-passage"
    expected = ranking_loss(
        questions,
        passages,
        document_of[gold] if by_document else gold,
        temperature=TEMPERATURE,
        document_of=document_of if by_document else None,
    )
    if directions == "both":
        back = reverse_ranking_loss(questions, passages, gold, temperature=TEMPERATURE)
        expected = (expected + back) / 2
    torch.testing.assert_close(loss, 2 * expected, atol=1e-4, rtol=1e-4)


def test_whole_documents_and_the_anchor(corpus: Corpus, tiny_encoder: MuseEncoder) -> None:
    settings = Contrastive(questions=0.0, whole_documents=0.5, anchor=3.0)
    material = material_of(settings, corpus, tiny_encoder)
    method = prepare(settings, material)
    with torch.no_grad():
        tiny_encoder.network.hidden_3.mul_(0.7).add_(0.05)
    examples, loss = loss_of(method, material, tiny_encoder, 7)
    texts = Texts(material, tiny_encoder)
    wholes = [corpus.document_by_id[id_].text for id_ in texts.documents]
    anchored = [*(passage.text for passage in texts.passages), *wholes]
    ranked = ranking_loss(
        texts.vectors(texts.questions(examples)),
        texts.vectors(wholes),
        texts.document_of()[texts.gold(examples)],
        temperature=TEMPERATURE,
    )
    before = Texts(material, material.start).vectors(anchored)  # type: ignore[arg-type]
    moved = anchor_loss(texts.vectors(anchored), before)
    assert moved > 1e-4
    torch.testing.assert_close(loss, 0.5 * ranked + 3 * moved, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("closeness", [0.0, 3.0])
def test_pairs_english_and_answered_questions(
    corpus: Corpus, tiny_encoder: MuseEncoder, closeness: float
) -> None:
    settings = Contrastive(
        questions=0.0, english=0.5, pairs=WANTED, answered=GIVEN, closeness=closeness
    )
    material = material_of(settings, corpus, tiny_encoder)
    method = prepare(settings, material)
    examples, loss = loss_of(method, material, tiny_encoder, 9)
    texts = Texts(material, tiny_encoder)

    def same(one: list[str], other: list[str]) -> torch.Tensor:
        return torch.tensor(
            [
                [a == c or b == d for c, d in zip(one, other, strict=True)]
                for a, b in zip(one, other, strict=True)
            ]
        )

    def paired(one: list[str], other: list[str]) -> torch.Tensor:
        first, second = texts.vectors(one), texts.vectors(other)
        ranked = paired_loss(first, second, temperature=TEMPERATURE, same=same(one, other))
        return ranked + closeness * (1 - functional.cosine_similarity(first, second)).mean()

    asked = [material.questions[number] for number in examples[:, 0]]
    foreign = [question for question in asked if question.language != "en"]
    english = [str(getattr(corpus.translation(q, "en"), "text", "")) for q in foreign]
    drawn = examples[:, 2]
    answers = examples[:, 3]
    pool = sorted(
        {ANSWERED.passages[number] for number in answers},
        key=lambda text: material.bank.rows([text], "passage")[0],
    )
    candidates = [*pool, *(passage.text for passage in texts.passages)]
    expected = (
        0.5 * paired([question.text for question in foreign], english)
        + paired([PAIRS.other[n] for n in drawn], [PAIRS.english[n] for n in drawn])
        + ranking_loss(
            texts.vectors([ANSWERED.questions[n] for n in answers]),
            texts.vectors(candidates),
            torch.tensor([candidates.index(ANSWERED.passages[n]) for n in answers]),
            temperature=TEMPERATURE,
        )
    )
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


def test_closeness_pulls_translations_alone(corpus: Corpus, tiny_encoder: MuseEncoder) -> None:
    gradients = []
    for closeness in (0.0, 1.0):
        settings = Contrastive(questions=0.0, english=1.0, closeness=closeness)
        material = material_of(settings, corpus, tiny_encoder)
        method = prepare(settings, material)
        examples = method.examples(0, tiny_encoder)
        vectors = material.bank.vectors(tiny_encoder, method.texts(examples)).requires_grad_()
        method.loss(vectors, examples).backward()
        assert vectors.grad is not None
        gradients.append(vectors.grad)
    foreign, english = (gradients[1] - gradients[0]).chunk(2)
    assert foreign.abs().max() > 1e-3
    torch.testing.assert_close(english, torch.zeros_like(english))


def test_translated_passages_and_their_sentences(corpus: Corpus, tiny_encoder: MuseEncoder) -> None:
    settings = Contrastive(questions=0.0, translated=1.0, sentences=1.0)
    material = material_of(settings, corpus, tiny_encoder)
    method = prepare(settings, material)
    examples = method.examples(0, tiny_encoder)[:6]
    rows = method.texts(examples)
    questions, passages = 6, len(material.supplies.passages)
    mixed = rows[questions : questions + passages].tolist()
    versions = [
        {int(material.bank.rows([texts[number]], "passage")[0]): code for code, texts in by.items()}
        for by in [material.supplies.translated]
        for number in range(passages)
    ]
    languages = [version[row] for version, row in zip(versions, mixed, strict=True)]
    assert set(languages) == {"de", "ru"}
    sentence = dict(material.supplies.sentences)
    loss = method.loss(tiny_encoder(material.bank.select(rows)), examples)
    texts = Texts(material, tiny_encoder)
    shown = [material.supplies.translated[code][number] for number, code in enumerate(languages)]
    english = texts.vectors([passage.text for passage in texts.passages])
    drawn = [material.supplies.sentences[number][0] for number in examples[:, 2]]
    expected = (
        ranking_loss(
            texts.vectors(texts.questions(examples)),
            texts.vectors(shown),
            texts.gold(examples),
            temperature=TEMPERATURE,
        )
        + paired_loss(
            texts.vectors(shown),
            english,
            temperature=TEMPERATURE,
            same=torch.eye(passages, dtype=torch.bool),
        )
        / 2
        + ranking_loss(
            texts.vectors(drawn),
            english,
            torch.tensor([sentence[text] for text in drawn]),
            temperature=TEMPERATURE,
        )
    )
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


def test_false_negatives_are_left_out(corpus: Corpus, tiny_encoder: MuseEncoder) -> None:
    settings = Contrastive(false_negatives=1.0)
    material = material_of(settings, corpus, tiny_encoder)
    examples, loss = loss_of(prepare(settings, material), material, tiny_encoder, 8)
    texts = Texts(material, tiny_encoder)
    questions = texts.vectors(texts.questions(examples))
    passages = texts.vectors([passage.text for passage in texts.passages])
    gold = texts.gold(examples)
    scores = questions @ passages.T
    above = scores > scores.gather(1, gold[:, None])
    assert 0 < above.sum() < above.numel()
    expected = ranking_loss(questions, passages, gold, temperature=TEMPERATURE, excluded=above)
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


def test_only_documents_that_training_questions_are_about_are_candidates(corpus: Corpus) -> None:
    train = take_split(corpus, "train", by="document")
    supplies = load_supplies(Contrastive(sentences=1.0), train, LANGUAGES)
    asked = {question.document_id for question in train.questions}
    assert {passage.document_id for passage in supplies.passages} == asked
    assert len(asked) < len(corpus.documents)
    for sentence, number in supplies.sentences:
        id_ = supplies.passages[number].id
        versions = [corpus.passage_translations[code][id_] for code in ("de", "ru")]
        assert any(sentence in version for version in versions)


def test_every_epoch_draws_anew_and_a_seed_decides(
    corpus: Corpus, tiny_encoder: MuseEncoder
) -> None:
    settings = Contrastive(pairs=(replace(WANTED[0], share=1.5),), sentences=1.0)
    material = material_of(settings, corpus, tiny_encoder)
    first, second = (prepare(settings, material) for _ in range(2))
    one = first.examples(0, tiny_encoder)
    np.testing.assert_array_equal(one, second.examples(0, tiny_encoder))
    assert not np.array_equal(one, first.examples(1, tiny_encoder))
    assert (one[:, 0] == np.arange(len(material.questions))).all()
    other = prepare(settings, replace(material, seed=1)).examples(0, tiny_encoder)
    assert not np.array_equal(one, other)


def test_passages_without_translation_are_refused(tiny_corpus: Corpus) -> None:
    train = split_corpus(tiny_corpus).train
    with pytest.raises(DataError, match="no translation into 'de'"):
        load_supplies(Contrastive(translated=1.0), train, LANGUAGES)


def test_questions_without_english_ones_are_refused(
    corpus: Corpus, tiny_encoder: MuseEncoder
) -> None:
    settings = Contrastive(english=1.0)
    alone = corpus.in_languages(["de"])
    train = split_corpus(alone).train
    supplies = load_supplies(settings, train, ["de"])
    bank = TextBank(*texts_of([alone]), tiny_encoder)
    material = Material(train, train.questions, bank, tiny_encoder, 0, 0, supplies)
    with pytest.raises(TrainingError, match="'english' needs questions with a translation"):
        prepare(settings, material)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"questions": 0.0}, "nothing would be learned"),
        ({"anchor": -1.0}, "anchor -1.0"),
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"false_negatives": 0.0}, "false_negatives 0.0"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Contrastive(**values)


STAGE = Stage(
    "contrastive",
    Contrastive(whole_documents=0.5, sentences=0.5, english=0.5, anchor=1.0, pairs=WANTED),
    Optimisation(
        epochs=3,
        batch=16,
        learning_rate=1e-3,
        schedule="cosine",
        average=0.9,
        token_dropout=0.2,
    ),
    DevSettings(patience=99, every_steps=2),
)


def run_stage(
    corpus: Corpus, encoder: MuseEncoder, checkpoint: Checkpoint | None = None
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], list[Checkpoint]]:
    material = material_of(STAGE.method, corpus, encoder)  # type: ignore[arg-type]
    log: list[dict[str, Any]] = []
    checkpoints: list[Checkpoint] = []

    def write(record: dict[str, Any]) -> int:
        log.append(record)
        return len(log)

    around = Surroundings(
        number=0,
        seed=0,
        log=write,
        save=lambda found: checkpoints.append(copy.deepcopy(found)),
        tick=lambda *_: None,
        checkpoint_seconds=0.0,
    )
    evaluator = RetrievalEvaluator(
        split_corpus(corpus).dev, EvaluationSettings(document_score="best-passage"), split="dev"
    )
    method = prepare(STAGE.method, material)
    best = train_stage(STAGE, encoder, method, material.bank, evaluator, around, checkpoint)
    return best, log, checkpoints


def test_the_rate_rises_and_falls_and_the_loss_falls(
    corpus: Corpus, tiny_encoder: MuseEncoder
) -> None:
    _, log, _ = run_stage(corpus, tiny_encoder)
    rates = [record["learning_rate"] for record in log]
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert max(rates[1:]) < 1e-3
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert log[-1]["loss"] < log[1]["loss"]


def test_going_on_from_a_checkpoint_gives_the_same_bits(
    corpus: Corpus, tiny_encoder: MuseEncoder
) -> None:
    best, _, checkpoints = run_stage(corpus, copy.deepcopy(tiny_encoder))
    assert len(checkpoints) > 4
    for checkpoint in (checkpoints[1], checkpoints[-2]):
        again, _, _ = run_stage(corpus, copy.deepcopy(tiny_encoder), checkpoint)
        for name, tensor in best.items():
            assert torch.equal(tensor, again[name]), name


def test_dropout_keeps_the_marks_and_about_the_right_share(
    corpus: Corpus, tiny_encoder: MuseEncoder
) -> None:
    bank = TextBank(*texts_of([corpus]), tiny_encoder)
    rows = np.arange(len(bank))
    whole, part = bank.select(rows), bank.select_on_host(rows, dropout=0.3, seed=5)
    inner = whole.tokens - 2 * len(bank)
    left = part.tokens - 2 * len(bank)
    assert 0.6 * inner < left < 0.8 * inner
    ends, own = whole.lengths.cumsum(0), part.lengths.cumsum(0)
    assert torch.equal(whole.token_ids[ends - 1], part.token_ids[own - 1])
    assert torch.equal(whole.token_ids[ends - whole.lengths], part.token_ids[own - part.lengths])
    again = bank.select_on_host(rows, dropout=0.3, seed=5)
    assert torch.equal(part.token_ids, again.token_ids)


def test_a_recipe_with_every_term_is_written_and_read(tiny_table: dict[str, Any]) -> None:
    tiny_table["stages"] = tiny_table["stages"][:1]
    tiny_table["stages"][0]["method"] = {
        "kind": "contrastive",
        "translated": 0.5,
        "pairs": [{"languages": ["de"], "weight": 1.0}],
        "answered": [{"source": "squad_part", "weight": 0.5}],
    }
    tiny_table["measurements"] = [{"name": "pool", "kind": "mixed-pool"}]
    recipe = recipe_from_json(tiny_table)
    assert recipe_from_json(recipe.to_json()) == recipe
    tiny_table["measurements"] *= 2
    with pytest.raises(SettingsError, match="two measurements have the same name"):
        recipe_from_json(tiny_table)


def test_supplies_of_other_stages_are_empty(tiny_corpus: Corpus) -> None:
    from clrelkt.objectives import TransferWeights

    method = Transfer(TransferWeights(question=1, document=1, document_question=1))
    assert load_supplies(method, tiny_corpus, LANGUAGES) == Supplies()
