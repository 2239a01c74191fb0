"""What each kind of stage trains on and towards.

A method yields examples, one a row, whose columns are rows of a ``TextBank``: (question, positive,
negative) for triplets, (question, document, English question) for transfer. The first
``encoded_columns`` of them are encoded, and the method turns their vectors into a loss. A method
may also ask for texts that are no columns, such as all passages (``training.contrastive``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from clrelkt.corpora.model import Corpus, Question
from clrelkt.encoders import Encoder, TextKind, TrainableEncoder, load_encoder
from clrelkt.encoders.ragged import to_device
from clrelkt.errors import DataError, SettingsError, TrainingError
from clrelkt.mining import CandidateSet, DenseMiner, Granularity, Triplets, mine_bm25
from clrelkt.objectives import distribution_loss, transfer_loss, triplet_loss
from clrelkt.text import IcuWords
from clrelkt.training.contrastive import ContrastiveMethod
from clrelkt.training.recipe import Contrastive, Method, Teacher, Transfer, WarmUp
from clrelkt.training.stage_method import Material, StageMethod

__all__ = ["load_teacher", "prepare"]


def prepare(method: Method, material: Material) -> StageMethod:
    """Make ready what ``method`` needs.

    Raises:
        TrainingError: there is nothing to train on.
        DataError: a question without gold, or whose gold is not in its pool.
    """
    if not material.questions:
        raise TrainingError("there are no training questions in the languages of this stage")
    match method:
        case WarmUp():
            return _WarmUpMethod(method, material)
        case Teacher():
            return _TeacherMethod(method, material)
        case Transfer():
            return _TransferMethod(method, material)
        case Contrastive():
            return ContrastiveMethod(method, material)


class _ByColumns:
    """Encodes the first columns of the examples."""

    encoded_columns: int

    def texts(self, examples: np.ndarray) -> np.ndarray:
        columns: np.ndarray = examples[:, : self.encoded_columns]
        return columns


class _TripletRows:
    """Triplets by id, as rows of the bank."""

    def __init__(self, material: Material, granularity: Granularity) -> None:
        corpus = material.corpus
        questions = material.questions
        self._question = dict(
            zip(
                (question.id for question in questions),
                material.bank.rows((question.text for question in questions), "question"),
                strict=True,
            )
        )
        candidates = CandidateSet.of(corpus.documents, granularity)
        self._candidate = dict(
            zip(candidates.ids, material.bank.rows(candidates.texts, "passage"), strict=True)
        )

    def __call__(self, triplets: Triplets) -> np.ndarray:
        columns = (
            [self._question[question] for question in triplets.question_ids],
            [self._candidate[positive] for positive in triplets.positive_ids],
            [self._candidate[negative] for negative in triplets.negative_ids],
        )
        return np.array(columns, dtype=np.int64).T


class _WarmUpMethod(_ByColumns):
    encoded_columns = 3

    def __init__(self, settings: WarmUp, material: Material) -> None:
        self._settings = settings
        self._material = material
        granularity = settings.negatives.granularity
        self._triplets = mine_bm25(
            material.questions, material.corpus, settings.negatives, IcuWords()
        )
        if not len(self._triplets):
            raise TrainingError(
                "BM25 found no negative for any question: "
                f"{', '.join(f'{n} with {why}' for why, n in self._triplets.left_out.items())}"
            )
        self._rows = _TripletRows(material, granularity)
        self._replacements = _Replacements(self._triplets, material, granularity)

    @property
    def notes(self) -> dict[str, int]:
        return dict(self._triplets.left_out)

    def examples(self, epoch: int, encoder: TrainableEncoder) -> np.ndarray:
        if epoch < self._settings.bm25_epochs:
            return self._rows(self._triplets)
        rng = np.random.default_rng((self._material.seed, self._material.stage, epoch, 1))
        return self._rows(self._replacements.draw(rng))

    def loss(self, vectors: torch.Tensor, examples: np.ndarray) -> torch.Tensor:
        return _triplets_loss(vectors, self._settings)


class _Replacements:
    """Random other negatives for mined triplets: any candidate of the pool that is no gold."""

    def __init__(self, triplets: Triplets, material: Material, granularity: Granularity) -> None:
        self._triplets = triplets
        question = {question.id: question for question in material.questions}
        self._pools: dict[tuple[str, str], tuple[str, ...]] = {}
        self._keys: list[tuple[str, str]] = []
        for question_id, positive in zip(triplets.question_ids, triplets.positive_ids, strict=True):
            key = (question[question_id].language, positive)
            self._keys.append(key)
            if key not in self._pools:
                candidates = CandidateSet.of(material.corpus.pool(key[0]), granularity)
                self._pools[key] = _others(candidates, positive)

    def draw(self, rng: np.random.Generator) -> Triplets:
        numbers = rng.random(len(self._keys))
        pools = [self._pools[key] for key in self._keys]
        negatives = [
            pool[int(number * len(pool))] for pool, number in zip(pools, numbers, strict=True)
        ]
        return Triplets(
            self._triplets.question_ids,
            self._triplets.positive_ids,
            tuple(negatives),
            self._triplets.granularity,
        )


def _others(candidates: CandidateSet, positive: str) -> tuple[str, ...]:
    place = candidates.position[positive]
    document, text = candidates.document_ids[place], candidates.texts[place]
    rows = zip(candidates.ids, candidates.document_ids, candidates.texts, strict=True)
    return tuple(id_ for id_, owner, same in rows if owner != document and same != text)


class _TeacherMethod(_ByColumns):
    encoded_columns = 3

    def __init__(self, settings: Teacher, material: Material) -> None:
        self._settings = settings
        self._material = material
        self._miner = DenseMiner(material.questions, material.corpus, settings.negatives)
        self._rows = _TripletRows(material, settings.negatives.granularity)

    @property
    def notes(self) -> dict[str, int]:
        return {}

    def examples(self, epoch: int, encoder: TrainableEncoder) -> np.ndarray:
        seed = (self._material.seed, self._material.stage, epoch, 1)
        encode = self._material.bank.encode_with(encoder)
        return self._rows(self._miner(encoder, seed, encode))

    def loss(self, vectors: torch.Tensor, examples: np.ndarray) -> torch.Tensor:
        return _triplets_loss(vectors, self._settings)


def _triplets_loss(vectors: torch.Tensor, settings: WarmUp | Teacher) -> torch.Tensor:
    anchor, positive, negative = vectors.unbind(1)
    return triplet_loss(
        anchor, positive, negative, margin=settings.margin, distance=settings.distance
    )


class _TransferMethod(_ByColumns):
    encoded_columns = 2

    def __init__(self, settings: Transfer, material: Material) -> None:
        self._settings = settings
        corpus, bank = material.corpus, material.bank
        pairs = _translated(material.questions, corpus)
        if not pairs:
            raise TrainingError(
                "the transfer stage needs each question's translation into "
                f"{corpus.document_language!r}, and no training question has one"
            )
        self._untranslated = len(material.questions) - len(pairs)
        golds = [_gold_text(question, corpus, settings.granularity) for question, _ in pairs]
        originals = [translation.text for _, translation in pairs]
        documents = bank.rows(golds, "passage")
        english = bank.rows(originals, "question")
        questions = bank.rows((question.text for question, _ in pairs), "question")
        self._examples = np.stack([questions, documents, english], axis=1)
        teacher = _Teacher(settings, material)
        candidates = None
        if settings.distribution is not None:
            candidates = CandidateSet.of(corpus.documents, settings.granularity).texts
        self._place = np.full(len(bank), -1, dtype=np.int64)
        distinct, first = np.unique(documents, return_index=True)
        self._place[distinct] = np.arange(len(distinct))
        parts = [teacher([golds[number] for number in first], "passage")]
        other, first = np.unique(english, return_index=True)
        self._place[other] = np.arange(len(other)) + len(distinct)
        parts.append(teacher([originals[number] for number in first], "question"))
        self._teacher = torch.cat(parts)
        self._candidates = None if candidates is None else teacher(candidates, "passage")

    @property
    def notes(self) -> dict[str, int]:
        return {"no translation into the documents' language": self._untranslated}

    def examples(self, epoch: int, encoder: TrainableEncoder) -> np.ndarray:
        return self._examples

    def loss(self, vectors: torch.Tensor, examples: np.ndarray) -> torch.Tensor:
        student_question, student_document = vectors.unbind(1)
        teacher_question = self._teacher_of(examples[:, 2])
        total = transfer_loss(
            teacher_question=teacher_question,
            teacher_document=self._teacher_of(examples[:, 1]),
            student_question=student_question,
            student_document=student_document,
            weights=self._settings.weights,
        ).total
        distribution = self._settings.distribution
        if distribution is None or self._candidates is None:
            return total
        return total + distribution.weight * distribution_loss(
            teacher_question @ self._candidates.T,
            student_question @ self._candidates.T,
            temperature=distribution.temperature,
        )

    def _teacher_of(self, rows: np.ndarray) -> torch.Tensor:
        places = to_device(torch.from_numpy(self._place[rows]), self._teacher.device)
        return self._teacher[places]


def _translated(questions: Sequence[Question], corpus: Corpus) -> list[tuple[Question, Question]]:
    pairs = []
    for question in questions:
        translation = corpus.translation(question, corpus.document_language)
        if translation is not None:
            pairs.append((question, translation))
    return pairs


def _gold_text(question: Question, corpus: Corpus, granularity: Granularity) -> str:
    if granularity == "document":
        return corpus.gold_document(question).text
    if question.passage_id is None or question.passage_id not in corpus.passage_by_id:
        raise DataError(
            f"question {question.id!r} of corpus {corpus.name!r}: its gold passage "
            f"{question.passage_id!r} is not in the corpus"
        )
    return corpus.passage_by_id[question.passage_id].text


class _Teacher:
    """The vectors of the stage's start, or of another encoder, on the device that trains."""

    def __init__(self, settings: Transfer, material: Material) -> None:
        self._bank = material.bank
        self._start = material.start
        self._other: Encoder | None = None
        if settings.teacher is not None:
            self._other = load_teacher(settings.teacher, material.start).to(material.bank.device)

    def __call__(self, texts: Sequence[str], kind: TextKind) -> torch.Tensor:
        """Return unit vectors, shape (texts, dimension)."""
        if self._other is None:
            return self._bank.vectors(self._start, self._bank.rows(texts, kind))
        return torch.from_numpy(self._other.encode(texts, kind)).to(self._bank.device)


def load_teacher(name: str, student: Encoder) -> TrainableEncoder:
    """Return the encoder called ``name``, which is to teach ``student``.

    Raises:
        SettingsError: its vectors are of another length than the student's.
    """
    teacher: TrainableEncoder = load_encoder(name)
    if teacher.dimension != student.dimension:
        raise SettingsError(
            f"teacher {name!r} makes vectors of {teacher.dimension} numbers, the student of "
            f"{student.dimension}. Give the student a layer that projects them, and train that: "
            f"clrelkt encoder import STUDENT --dimension {teacher.dimension} -o FOLDER"
        )
    return teacher
