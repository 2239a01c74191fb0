"""Splits of a corpus that a seed decides, the same on every machine.

By question, 60 % of the parallel questions train, 20 % are dev and 20 % test (XQuAD: 714, 238,
238). By document, a quarter of the documents is test and a sixth is dev (of 48: 28 train, 8 dev,
12 test), and every question of a document is on its document's side. A corpus with a split of its
own keeps its test questions; a fifth of the others is dev.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from clrelkt.corpora.model import Corpus, Part, Question
from clrelkt.errors import DataError, UnknownNameError

__all__ = ["Split", "SplitBy", "Splits", "split_corpus", "take_split"]

Split = Literal["train", "dev", "test", "all"]
"""A side of a split, or the whole corpus."""

SplitBy = Literal["question", "document"]
"""What stays on one side: a question with its translations, or a document with its questions."""

_QUESTION_TEST = _QUESTION_DEV = 1 / 5
_DOCUMENT_TEST, _DOCUMENT_DEV = 1 / 4, 1 / 6


@dataclass(frozen=True, slots=True)
class Splits:
    """A corpus in three: different questions, the same documents."""

    train: Corpus
    dev: Corpus
    test: Corpus


def split_corpus(corpus: Corpus, *, by: SplitBy = "question", seed: int = 0) -> Splits:
    """Split a corpus into train, dev and test.

    All translations of a question are on one side. Where a corpus comes with a split of its own,
    its test questions stay that, and the seed divides the others into train and dev.

    Args:
        corpus: the corpus.
        by: ``question``, or ``document`` to keep all questions of a document on one side too.
        seed: another seed gives another split.
    """
    if corpus.fixed_split is None:
        sides = _draw(_groups(corpus.questions, by), seed, _shares(by))
        return _splits(corpus, sides)
    parts = corpus.fixed_split.parts
    fit = [question for question in corpus.questions if parts[question.parallel_id] == "fit"]
    sides = _draw(_groups(fit, by), seed, (0.0, _QUESTION_DEV))
    for parallel_id, part in parts.items():
        if part == "test":
            sides[parallel_id] = "test"
    return _splits(corpus, sides)


def take_split(corpus: Corpus, split: Split, *, seed: int = 0, by: SplitBy = "question") -> Corpus:
    """Return one side of a corpus's split, or all of the corpus.

    Raises:
        DataError: there is no question on that side.
        UnknownNameError: there is no such split.
    """
    if split == "all":
        return corpus
    splits = split_corpus(corpus, by=by, seed=seed)
    sides = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    if split not in sides:
        raise UnknownNameError(f"no split {split!r}; there are train, dev, test and all")
    if not sides[split].questions:
        kind = {"train": "training"}.get(split, split)
        remedy = corpus.fixed_split.remedy if corpus.fixed_split else ""
        raise DataError(
            f"{corpus.name} has no {kind} questions here: "
            + (remedy or f"it has {len(corpus.questions)} questions in all; use another split")
        )
    return sides[split]


def _shares(by: SplitBy) -> tuple[float, float]:
    """Return the shares of test and dev."""
    if by == "question":
        return _QUESTION_TEST, _QUESTION_DEV
    if by == "document":
        return _DOCUMENT_TEST, _DOCUMENT_DEV
    raise UnknownNameError(f"no split by {by!r}; there are question and document")


def _groups(questions: Iterable[Question], by: SplitBy) -> list[list[str]]:
    """Return parallel ids that must stay together, in an order that no input order changes."""
    if by == "question":
        return [[id_] for id_ in sorted({question.parallel_id for question in questions})]
    return _linked_by_document(questions)


def _linked_by_document(questions: Iterable[Question]) -> list[list[str]]:
    # Each language of MLQA has documents of its own, so an article is several documents that
    # only translations of a question tie together.
    leader: dict[tuple[str, str], tuple[str, str]] = {}

    def find(node: tuple[str, str]) -> tuple[str, str]:
        path = []
        while (above := leader.setdefault(node, node)) != node:
            path.append(node)
            node = above
        for step in path:
            leader[step] = node
        return node

    for question in questions:
        own = find(("question", question.parallel_id))
        if question.document_id is not None:
            leader[own] = find(("document", question.document_id))
    groups: dict[tuple[str, str], list[str]] = {}
    for node in list(leader):
        if node[0] == "question":
            groups.setdefault(find(node), []).append(node[1])
    return sorted(sorted(group) for group in groups.values())


def _draw(
    groups: list[list[str]], seed: int, shares: tuple[float, float]
) -> dict[str, Literal["train", "dev", "test"]]:
    # The bits of PCG64 are fixed for good; the methods of numpy's Generator may change.
    keys = np.random.PCG64(seed).random_raw(len(groups))
    order = np.argsort(keys, kind="stable")
    tests, devs = (round(share * len(groups)) for share in shares)
    sides: dict[str, Literal["train", "dev", "test"]] = {}
    for rank, position in enumerate(order.tolist()):
        side: Literal["train", "dev", "test"] = "train"
        if rank < tests:
            side = "test"
        elif rank < tests + devs:
            side = "dev"
        sides.update(dict.fromkeys(groups[position], side))
    return sides


def _splits(corpus: Corpus, sides: Mapping[str, Literal["train", "dev", "test"]]) -> Splits:
    def take(side: Literal["train", "dev", "test"], part: Part) -> Corpus:
        chosen = corpus.with_questions(
            question for question in corpus.questions if sides.get(question.parallel_id) == side
        )
        if corpus.fixed_split is None or part not in corpus.fixed_split.pools:
            return chosen
        return replace(chosen, pools=corpus.fixed_split.pools[part])

    return Splits(train=take("train", "fit"), dev=take("dev", "fit"), test=take("test", "test"))
