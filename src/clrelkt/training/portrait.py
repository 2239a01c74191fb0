"""What pictures of a run are made of: some texts, their vectors before and after, and counts.

A run ends by writing it into its folder, ``portrait.json`` and ``portrait.safetensors``, so that
its report can be made, and made again, without the corpus and without an encoder.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import torch

from clrelkt.corpora.model import Question
from clrelkt.encoders.tensors import read_tensors, write_tensors
from clrelkt.errors import EncoderError, TrainingError
from clrelkt.evaluation import Results, RetrievalEvaluator, WrongAnswer, find_errors
from clrelkt.evaluation.language_bias import LanguageBias, measure_language_bias
from clrelkt.evaluation.separation import Separation, measure_separation
from clrelkt.files import atomic_file, write_json
from clrelkt.mining.texts import Encode
from clrelkt.training.recipe import ZERO_SHOT, Recipe

__all__ = [
    "PICTURED_DOCUMENTS",
    "PicturedText",
    "Portrait",
    "WorstAnswer",
    "portray",
    "portrayed_encoders",
    "read_portrait",
    "write_portrait",
]

FORMAT = 1
PICTURED_DOCUMENTS = 8
"""How many documents have a colour of their own."""

_JSON, _TENSORS = "portrait.json", "portrait.safetensors"
_QUESTIONS, _CANDIDATES, _OF_ONE_DOCUMENT = 660, 240, 6
_BIAS_QUESTIONS = 4_000
_WORST = 10
_EXCERPT = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class PicturedText:
    """A question, or a text that questions are ranked against (a document or a passage).

    ``document_id`` is a question's gold document, or the document that a passage is of; ``title``
    is that document's. ``ranks`` holds a question's gold rank by encoder; a candidate has none, and
    no ``parallel_id``. ``text`` is cut after 240 characters.
    """

    language: str
    document_id: str
    title: str
    text: str
    parallel_id: str = ""
    ranks: Mapping[str, int] | None = None

    @property
    def is_question(self) -> bool:
        """Whether it is a question."""
        return self.ranks is not None

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        record = {name: getattr(self, name) for name in self.__slots__}
        return record | {"ranks": None if self.ranks is None else dict(self.ranks)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        ranks = record["ranks"]
        given = {name: str(record[name]) for name in cls.__slots__ if name != "ranks"}
        return cls(
            **given,
            ranks=None if ranks is None else {str(key): int(rank) for key, rank in ranks.items()},
        )


@dataclass(frozen=True, slots=True)
class WorstAnswer:
    """One of the questions whose gold ranks last, and the encoder that ranks it so.

    ``meant`` is the question in the documents' language, "" where there is no such version or the
    question is asked in it.
    """

    encoder: str
    answer: WrongAnswer
    meant: str = ""


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """What pictures of a run are made of; encoders go by the names of their stages.

    Attributes:
        split: the questions that were asked, ``test`` or ``dev``.
        pool: what is ranked, ``document`` or ``passage``.
        encoders: ``zero-shot`` first, then every stage that no other starts from.
        own: the encoder of each language: the last stage that trained on it.
        questions: how many questions were asked in all.
        share: by encoder, the mean over languages of the share of questions whose first is gold.
        documents: ids of the documents with most questions, which pictures give a colour.
        texts: some questions in all languages, and some candidates.
        vectors: by encoder, the unit vectors of ``texts``, shape (texts, dimension), float16.
        separation: by encoder and language.
        bias: by encoder and language.
        worst: the questions whose gold ranks last in the encoders of their languages, last first.
    """

    split: str
    pool: str
    encoders: tuple[str, ...]
    own: Mapping[str, str]
    questions: int
    share: Mapping[str, float]
    documents: tuple[str, ...]
    texts: tuple[PicturedText, ...]
    vectors: Mapping[str, np.ndarray]
    separation: Mapping[str, Mapping[str, Separation]]
    bias: Mapping[str, Mapping[str, LanguageBias]]
    worst: tuple[WorstAnswer, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything but the vectors."""
        return {
            "format": FORMAT,
            "split": self.split,
            "pool": self.pool,
            "encoders": list(self.encoders),
            "own": dict(self.own),
            "questions": self.questions,
            "share": dict(self.share),
            "documents": list(self.documents),
            "texts": [text.to_json() for text in self.texts],
            "separation": _by_language(self.separation),
            "bias": _by_language(self.bias),
            "worst": [
                {"encoder": w.encoder, "meant": w.meant} | w.answer.to_json() for w in self.worst
            ],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any], vectors: Mapping[str, np.ndarray]) -> Self:
        """Read what ``to_json`` wrote, with the vectors beside it.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: a value is missing or does not fit.
        """
        encoders = tuple(str(name) for name in record["encoders"])
        texts = tuple(PicturedText.from_json(text) for text in record["texts"])
        for name in encoders:
            if vectors[name].shape[0] != len(texts) or not np.isfinite(vectors[name]).all():
                raise ValueError(f"{len(texts)} texts, but other vectors of {name!r}")
        return cls(
            split=str(record["split"]),
            pool=str(record["pool"]),
            encoders=encoders,
            own={str(code): str(name) for code, name in record["own"].items()},
            questions=int(record["questions"]),
            share={str(name): float(share) for name, share in record["share"].items()},
            documents=tuple(str(id_) for id_ in record["documents"]),
            texts=texts,
            vectors=MappingProxyType({name: vectors[name] for name in encoders}),
            separation={
                name: {code: Separation.from_json(row) for code, row in rows.items()}
                for name, rows in record["separation"].items()
            },
            bias={
                name: {
                    code: LanguageBias(float(row["share"]), float(row["expected"]))
                    for code, row in rows.items()
                }
                for name, rows in record["bias"].items()
            },
            worst=tuple(_worst_from_json(row) for row in record["worst"]),
        )


def _by_language(table: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        name: {code: row.to_json() for code, row in rows.items()} for name, rows in table.items()
    }


def _worst_from_json(record: Mapping[str, Any]) -> WorstAnswer:
    answer = {key: value for key, value in record.items() if key not in ("encoder", "meant")}
    return WorstAnswer(
        str(record["encoder"]), WrongAnswer.from_json(answer), str(record.get("meant", ""))
    )


def portrayed_encoders(recipe: Recipe) -> tuple[str, ...]:
    """Return the encoder before training, and those of all stages that no other starts from."""
    starts = {stage.start for stage in recipe.stages}
    return (ZERO_SHOT, *(stage.name for stage in recipe.stages if stage.name not in starts))


def portray(
    evaluator: RetrievalEvaluator,
    results: Mapping[str, Results],
    encode: Mapping[str, Encode],
    stage_languages: Mapping[str, Sequence[str]],
) -> Portrait:
    """Draw texts, always the same, and look at them with every encoder of ``encode``.

    Args:
        evaluator: what has given ``results``.
        results: by encoder, with ranks.
        encode: by encoder, zero-shot first. The evaluator's own texts are asked for again.
        stage_languages: the languages that each stage trains on.
    """
    codes = [task.language for task in evaluator.tasks]
    own = {code: _own_encoder(code, list(encode), stage_languages) for code in codes}
    documents = _coloured(evaluator)
    questions = _chosen_questions(evaluator, documents)
    candidates = _chosen_candidates(evaluator, questions, documents)
    ranks = {name: _ranks(evaluator, results[name]) for name in encode}
    texts = [
        *(_pictured(evaluator, q, {name: ranks[name][q.id] for name in encode}) for q in questions),
        *(candidates.values()),
    ]
    return Portrait(
        split=evaluator.split,
        pool=evaluator.settings.pool,
        encoders=tuple(encode),
        own=own,
        questions=sum(len(task.questions) for task in evaluator.tasks),
        share={name: results[name].mean.hit_rate_at_1 for name in encode},
        documents=documents,
        texts=tuple(texts),
        vectors={
            name: _vectors(evaluator, one, [q.text for q in questions], list(candidates))
            for name, one in encode.items()
        },
        separation={name: measure_separation(evaluator, one) for name, one in encode.items()},
        bias={name: _bias(evaluator, one) for name, one in encode.items()},
        worst=_worst(evaluator, results, encode, own),
    )


def _own_encoder(
    code: str, names: Sequence[str], stage_languages: Mapping[str, Sequence[str]]
) -> str:
    trained = [name for name in names[1:] if code in stage_languages[name]]
    return trained[-1] if trained else names[-1]


def _all_questions(evaluator: RetrievalEvaluator) -> Iterator[Question]:
    return chain.from_iterable(task.questions for task in evaluator.tasks)


def _coloured(evaluator: RetrievalEvaluator) -> tuple[str, ...]:
    counts = Counter(str(question.document_id) for question in _all_questions(evaluator))
    ranked = sorted(counts, key=lambda id_: (-counts[id_], id_))
    return tuple(sorted(ranked[:PICTURED_DOCUMENTS]))


def _shuffled_ids(questions: Iterator[Question]) -> list[str]:
    # As in splits: the bits of PCG64 are fixed for good.
    ids = sorted({question.parallel_id for question in questions})
    keys = np.random.PCG64(0).random_raw(len(ids))
    return [ids[place] for place in np.argsort(keys, kind="stable")]


def _chosen_questions(evaluator: RetrievalEvaluator, documents: Sequence[str]) -> list[Question]:
    """Take some of each coloured document first, the same in all languages, then any."""
    of_id = {question.parallel_id: question for question in _all_questions(evaluator)}
    taken: Counter[str] = Counter()
    first: list[str] = []
    rest: list[str] = []
    for parallel_id in _shuffled_ids(_all_questions(evaluator)):
        document = str(of_id[parallel_id].document_id)
        taken[document] += 1
        early = document in documents and taken[document] <= _OF_ONE_DOCUMENT
        (first if early else rest).append(parallel_id)
    each = max(1, _QUESTIONS // len(evaluator.tasks))
    chosen: list[Question] = []
    for task in evaluator.tasks:
        by_id = {question.parallel_id: question for question in task.questions}
        chosen += [by_id[id_] for id_ in (*first, *rest) if id_ in by_id][:each]
    return chosen


def _chosen_candidates(
    evaluator: RetrievalEvaluator, questions: Sequence[Question], documents: Sequence[str]
) -> dict[str, PicturedText]:
    """Return candidates by text: those of coloured documents, of gold documents, then any."""
    corpus = evaluator.corpus
    gold = {str(question.document_id) for question in questions}
    found: dict[str, PicturedText] = {}
    for task in evaluator.tasks:
        ids = task.scored.document_ids
        for text, id_ in zip(task.scored.texts, ids, strict=True):
            if text not in found:
                found[text] = PicturedText(
                    language=corpus.document_language,
                    document_id=id_,
                    title=corpus.document_by_id[id_].title,
                    text=text[:_EXCERPT],
                )
    order = sorted(
        found,
        key=lambda text: (
            found[text].document_id not in documents,
            found[text].document_id not in gold,
        ),
    )
    return {text: found[text] for text in order[:_CANDIDATES]}


def _pictured(
    evaluator: RetrievalEvaluator, question: Question, ranks: Mapping[str, int]
) -> PicturedText:
    document = evaluator.corpus.gold_document(question)
    return PicturedText(
        language=question.language,
        document_id=document.id,
        title=document.title,
        text=question.text[:_EXCERPT],
        parallel_id=question.parallel_id,
        ranks=ranks,
    )


def _ranks(evaluator: RetrievalEvaluator, results: Results) -> dict[str, int]:
    found: dict[str, int] = {}
    for task in evaluator.tasks:
        ranks = results.languages[task.language].ranks
        assert ranks is not None
        found |= {q.id: int(rank) for q, rank in zip(task.questions, ranks, strict=True)}
    return found


def _vectors(
    evaluator: RetrievalEvaluator, encode: Encode, questions: list[str], candidates: list[str]
) -> np.ndarray:
    def rows(texts: Sequence[str], known: Sequence[str]) -> list[int]:
        number = {text: row for row, text in enumerate(known)}
        return [number[text] for text in texts]

    asked, ranked = evaluator.question_texts, evaluator.candidate_texts
    return np.concatenate(
        [
            encode(asked, "question")[rows(questions, asked)],
            encode(ranked, "passage")[rows(candidates, ranked)],
        ]
    ).astype(np.float16)


def _bias(evaluator: RetrievalEvaluator, encode: Encode) -> Mapping[str, LanguageBias]:
    ids = _shuffled_ids(_all_questions(evaluator))
    each = max(1, _BIAS_QUESTIONS // len(evaluator.tasks))
    wanted = set(ids[:each])
    questions = [q for q in _all_questions(evaluator) if q.parallel_id in wanted]
    number = {text: row for row, text in enumerate(evaluator.question_texts)}
    vectors = encode(evaluator.question_texts, "question")
    return measure_language_bias(questions, vectors[[number[q.text] for q in questions]])


def _worst(
    evaluator: RetrievalEvaluator,
    results: Mapping[str, Results],
    encode: Mapping[str, Encode],
    own: Mapping[str, str],
) -> tuple[WorstAnswer, ...]:
    corpus = evaluator.corpus
    by_id = {question.id: question for question in _all_questions(evaluator)}

    def meant(error: WrongAnswer) -> str:
        version = corpus.translation(by_id[error.question_id], corpus.document_language)
        return version.text if version and error.language != corpus.document_language else ""

    found: list[WorstAnswer] = []
    for name in dict.fromkeys(own.values()):
        codes = [code for code, stage in own.items() if stage == name]
        errors = find_errors(
            evaluator, results[name], encode[name], limit=_WORST, worst=True, languages=codes
        )
        found += [WorstAnswer(name, error, meant(error)) for error in errors]
    found.sort(key=lambda worst: (-worst.answer.gold_rank, worst.answer.question_id))
    return tuple(found[:_WORST])


def write_portrait(folder: Path, portrait: Portrait) -> None:
    """Write it into the folder of its run, the vectors first.

    Raises:
        StorageError: it could not be written.
    """
    tensors = {
        name: torch.from_numpy(vectors).contiguous() for name, vectors in portrait.vectors.items()
    }
    with atomic_file(folder / _TENSORS) as temporary:
        write_tensors(temporary, tensors)
    write_json(folder / _JSON, portrait.to_json())


def read_portrait(folder: Path) -> Portrait | None:
    """Read what a run wrote; None for a run of an older version, which wrote none.

    Raises:
        TrainingError: it cannot be read, or is of a newer format.
    """
    path = folder / _JSON
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        tensors = read_tensors(folder / _TENSORS)
        if record["format"] > FORMAT:
            raise TrainingError(
                f"{path}: format {record['format']}, but this clrelkt reads up to {FORMAT}; "
                "install a newer clrelkt"
            )
        return Portrait.from_json(record, {name: t.numpy() for name, t in tensors.items()})
    except (OSError, EncoderError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrainingError(
            f"{path} cannot be read ({error!r}); remove it to make a report without pictures"
        ) from error
