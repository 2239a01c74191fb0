from __future__ import annotations

import numpy as np
import pytest

from clrelkt.corpora.model import Corpus
from clrelkt.encoders.protocol import Encoder
from clrelkt.evaluation import EvaluationSettings, RetrievalEvaluator
from clrelkt.evaluation.separation import BINS, measure_separation


@pytest.mark.parametrize(
    "settings",
    [
        EvaluationSettings(),
        EvaluationSettings(pool="passage"),
        EvaluationSettings(document_score="best-passage"),
    ],
)
def test_every_pair_is_counted_once(
    corpus: Corpus, encoder: Encoder, settings: EvaluationSettings
) -> None:
    evaluator = RetrievalEvaluator(corpus, settings)
    found = measure_separation(evaluator, encoder.encode)
    assert list(found) == list(corpus.languages)
    for code, separation in found.items():
        questions = corpus.questions_in(code)
        pool = corpus.pool(code)
        ranked = len(pool)
        if settings.pool == "passage":
            ranked = sum(len(document.passages) for document in pool)
        assert sum(separation.gold) == len(questions)
        assert sum(separation.other) == len(questions) * (ranked - 1)


def test_the_share_follows_from_the_cosines(corpus: Corpus, encoder: Encoder) -> None:
    evaluator = RetrievalEvaluator(corpus, EvaluationSettings(pool="passage"))
    found = measure_separation(evaluator, encoder.encode)["en"]
    questions = corpus.questions_in("en")
    passages = [passage for document in corpus.documents for passage in document.passages]
    asked = encoder.encode([question.text for question in questions], "question")
    cosines = asked @ encoder.encode([passage.text for passage in passages], "passage").T
    gold = [
        cosines[row, [passage.id for passage in passages].index(str(question.passage_id))]
        for row, question in enumerate(questions)
    ]
    other = [c for row, own in zip(cosines, gold, strict=True) for c in row if c != own]
    above = np.mean([one > two for one in gold for two in other])
    assert found.share == pytest.approx(above, abs=0.02)
    # A cosine of 1 belongs to the last bin.
    assert found.gold[BINS - 1] == sum(value > 0.99 for value in gold) > 0
