from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clrelkt.corpora import Corpus, Question
from clrelkt.encoders import MuseEncoder, TextKind
from clrelkt.errors import DataError, TrainingError
from clrelkt.mining import BM25Mining, DenseMining, Granularity, mine_bm25, mine_with_encoder
from clrelkt.objectives import TransferWeights
from clrelkt.text import IcuWords
from clrelkt.training.methods import prepare
from clrelkt.training.recipe import Method, Teacher, Transfer, WarmUp
from clrelkt.training.stage_method import Material

MakeMaterial = Callable[..., Material]

WARM_UP = WarmUp(margin=0.24, negatives=BM25Mining(granularity="passage"), bm25_epochs=2)
TEACHER = Teacher(DenseMining(hard=2, semi_hard=2, granularity="passage"))
TRANSFER = Transfer(TransferWeights(question=0.1, document=1, document_question=0.3))


def texts_by_row(material: Material) -> dict[int, str]:
    """The texts of a bank's rows, found with the bank itself."""
    corpus = material.corpus
    passages = [passage.text for passage in corpus.passage_by_id.values()]
    documents = [document.text for document in corpus.documents]
    questions = [question.text for question in corpus.questions]
    rows: dict[int, str] = {}
    kinds: tuple[tuple[list[str], TextKind], ...] = (
        (questions, "question"),
        ([*passages, *documents], "passage"),
    )
    for texts, kind in kinds:
        rows |= dict(zip(material.bank.rows(texts, kind).tolist(), texts, strict=True))
    return rows


def in_texts(material: Material, examples: np.ndarray) -> list[tuple[str, ...]]:
    texts = texts_by_row(material)
    return [tuple(texts[row] for row in example) for example in examples.tolist()]


def without_english(corpus: Corpus, *parallel_ids: str) -> Corpus:
    return corpus.with_questions(
        question
        for question in corpus.questions
        if question.language != "en" or question.parallel_id not in parallel_ids
    )


def gold_texts(corpus: Corpus, question: Question) -> set[str]:
    """Every passage of a question's document."""
    return {passage.text for passage in corpus.gold_document(question).passages}


def test_warm_up_mines_with_bm25_and_then_draws(
    make_material: MakeMaterial, tiny_encoder: MuseEncoder
) -> None:
    material = make_material("de", "ru")
    method = prepare(WARM_UP, material)
    epochs = [in_texts(material, method.examples(n, tiny_encoder)) for n in range(5)]
    passages = {id_: passage.text for id_, passage in material.corpus.passage_by_id.items()}
    question_text = {question.id: question.text for question in material.questions}
    mined = mine_bm25(material.questions, material.corpus, WARM_UP.negatives, IcuWords())
    expected = [
        (question_text[question], passages[positive], passages[negative])
        for question, positive, negative in zip(
            mined.question_ids, mined.positive_ids, mined.negative_ids, strict=True
        )
    ]
    assert epochs[0] == epochs[1] == expected
    for drawn in epochs[2:]:
        assert [row[:2] for row in drawn] == [row[:2] for row in expected]
    negatives = [[row[2] for row in drawn] for drawn in epochs]
    assert len({tuple(column) for column in negatives[1:]}) == 4
    seen = {(question, negative) for drawn in epochs[2:] for question, _, negative in drawn}
    asked = {question.text: question for question in material.questions}
    for question, negative in seen:
        assert negative not in gold_texts(material.corpus, asked[question])
    # More is drawn than BM25 has ever found.
    assert seen - {(question, negative) for question, _, negative in expected}


@pytest.mark.parametrize("granularity", ["document", "passage"])
def test_a_drawn_negative_may_be_any_text_of_another_document(
    make_material: MakeMaterial, tiny_encoder: MuseEncoder, granularity: Granularity
) -> None:
    material = make_material("de")
    settings = replace(
        WARM_UP, negatives=BM25Mining(granularity=granularity, first_rank=1), bm25_epochs=0
    )
    method = prepare(settings, material)
    drawn = [row for n in range(40) for row in in_texts(material, method.examples(n, tiny_encoder))]
    question = material.questions[0]
    own = material.corpus.gold_document(question)
    found = {negative for text, _, negative in drawn if text == question.text}
    others = [document for document in material.corpus.documents if document.id != own.id]
    if granularity == "document":
        assert found == {document.text for document in others}
    else:
        assert found == {passage.text for document in others for passage in document.passages}


def test_draws_depend_on_seed_and_epoch_alone(
    make_material: MakeMaterial, tiny_encoder: MuseEncoder
) -> None:
    first, again, other = (
        prepare(WARM_UP, make_material("de", "ru", seed=seed)) for seed in (3, 3, 4)
    )
    # In another order: a run that was resumed asks for a late epoch first.
    late, early = again.examples(4, tiny_encoder), again.examples(3, tiny_encoder)
    np.testing.assert_array_equal(first.examples(3, tiny_encoder), early)
    np.testing.assert_array_equal(first.examples(4, tiny_encoder), late)
    assert not np.array_equal(other.examples(4, tiny_encoder), late)


def test_the_teacher_mines_anew_each_epoch(
    make_material: MakeMaterial, tiny_encoder: MuseEncoder
) -> None:
    material = make_material("de", "ru")
    method = prepare(TEACHER, material)
    passages = {id_: passage.text for id_, passage in material.corpus.passage_by_id.items()}
    question_text = {question.id: question.text for question in material.questions}
    found = []
    for epoch in range(3):
        examples = in_texts(material, method.examples(epoch, tiny_encoder))
        mined = mine_with_encoder(
            tiny_encoder,
            material.questions,
            material.corpus,
            TEACHER.negatives,
            (material.seed, material.stage, epoch, 1),
        )
        ids = zip(mined.question_ids, mined.positive_ids, mined.negative_ids, strict=True)
        assert examples == [(question_text[q], passages[p], passages[n]) for q, p, n in ids]
        found.append(examples)
        with torch.no_grad():
            for parameter in tiny_encoder.parameters():
                parameter.mul_(
                    1 + 0.1 * torch.sin(torch.arange(parameter.numel())).view_as(parameter)
                )
    assert found[0] != found[1] != found[2]
    asked = {question.text: question for question in material.questions}
    for question, _, negative in (row for epoch in found for row in epoch):
        assert negative not in gold_texts(material.corpus, asked[question])


def test_transfer_pairs_a_question_with_its_document_and_translation(
    make_material: MakeMaterial, tiny_encoder: MuseEncoder
) -> None:
    for granularity in ("document", "passage"):
        material = make_material("de", "ru")
        method = prepare(replace(TRANSFER, granularity=granularity), material)
        examples = in_texts(material, method.examples(0, tiny_encoder))
        corpus = material.corpus
        expected = []
        for question in material.questions:
            translation = corpus.translation(question, "en")
            gold = (
                corpus.gold_document(question)
                if granularity == "document"
                else corpus.passage_by_id[question.passage_id or ""]
            )
            assert translation is not None
            expected.append((question.text, gold.text, translation.text))
        assert examples == expected


def one_by_one(encoder: MuseEncoder, texts: list[str]) -> torch.Tensor:
    return torch.cat([encoder(encoder.tokenize([text])) for text in texts])


def test_the_teachers_vectors_are_the_start_encoders_and_frozen(
    make_material: MakeMaterial, tiny_encoder: MuseEncoder
) -> None:
    material = make_material("de", "ru")
    method = prepare(TRANSFER, material)
    examples = method.examples(0, tiny_encoder)[3:9]
    columns = [list(column) for column in zip(*in_texts(material, examples), strict=True)]
    questions, documents, english = (
        one_by_one(tiny_encoder, column).detach() for column in columns
    )
    student = torch.stack([questions, documents], dim=1).requires_grad_()
    mse = torch.nn.functional.mse_loss
    # The student is the teacher still, so that the document's term is nothing.
    expected = 1000 * (0.1 * mse(questions, english) + 0.3 * mse(questions, documents))
    loss = method.loss(student, examples)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        for parameter in tiny_encoder.parameters():
            parameter.mul_(1.5)
    assert torch.equal(method.loss(student, examples), loss)
    loss.backward()
    assert student.grad is not None
    assert all(parameter.grad is None for parameter in tiny_encoder.parameters())


def test_questions_without_english_are_counted(
    tiny_corpus: Corpus, make_material: MakeMaterial, tiny_encoder: MuseEncoder
) -> None:
    whole = make_material("de", "ru")
    lost = [question.parallel_id for question in whole.questions[:2]]
    assert len(set(lost)) == 2
    material = make_material("de", "ru", corpus=without_english(tiny_corpus, *lost))
    assert len(material.questions) == len(whole.questions)
    warm_up, transfer = prepare(WARM_UP, material), prepare(TRANSFER, material)
    assert warm_up.notes == {"no translation into 'en'": 4}
    assert transfer.notes == {"no translation into the documents' language": 4}
    left = len(material.questions) - 4
    assert len(transfer.examples(0, tiny_encoder)) == left
    asked = {row[0] for row in in_texts(material, warm_up.examples(0, tiny_encoder))}
    assert len(asked) == left


def test_no_english_at_all(tiny_corpus: Corpus, make_material: MakeMaterial) -> None:
    bare = without_english(
        tiny_corpus, *{question.parallel_id for question in tiny_corpus.questions}
    )
    material = make_material("de", corpus=bare)
    with pytest.raises(TrainingError, match="needs each question's translation into 'en'"):
        prepare(TRANSFER, material)
    with pytest.raises(TrainingError, match=r"no negative for any question: \d+ with no transl"):
        prepare(WARM_UP, material)


@pytest.mark.parametrize("method", [WARM_UP, TEACHER, TRANSFER])
def test_no_questions(make_material: MakeMaterial, method: Method) -> None:
    with pytest.raises(TrainingError, match="no training questions in the languages of this stage"):
        prepare(method, replace(make_material("de"), questions=()))


@pytest.mark.parametrize(
    ("method", "change"),
    [
        (WARM_UP, {"passage_id": None}),
        (TEACHER, {"passage_id": None}),
        (replace(TRANSFER, granularity="passage"), {"passage_id": None}),
        (replace(TRANSFER, granularity="passage"), {"passage_id": "elsewhere#0"}),
        (TRANSFER, {"document_id": None}),
        (TRANSFER, {"document_id": "elsewhere"}),
    ],
)
def test_a_question_without_gold(
    make_material: MakeMaterial, method: Method, change: dict[str, Any]
) -> None:
    material = make_material("de")
    broken = replace(material.questions[1], **change)
    questions = (material.questions[0], broken, *material.questions[2:])
    with pytest.raises(DataError, match=f"question '{broken.id}'"):
        prepare(method, replace(material, questions=questions))
