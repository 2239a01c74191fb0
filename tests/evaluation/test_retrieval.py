from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clrelkt.evaluation.retrieval as module
from clrelkt.corpora import Corpus, Document, Passage, load_corpus, take_split
from clrelkt.encoders import MuseEncoder
from clrelkt.errors import DataError, SettingsError, UnknownNameError
from clrelkt.evaluation import EvaluationSettings, RetrievalEvaluator, evaluate


def reference_ranks(encoder: Any, corpus: Corpus, language: str, how: str) -> list[int]:
    """Rank one question after the other, with plain dot products and sorting."""
    ranks = []
    for question in corpus.questions_in(language):
        [asked] = encoder.encode([question.text], "question")
        scores: dict[str, float] = {}
        for document in corpus.pool(language):
            of_passages = {
                passage.id: float(encoder.encode([passage.text])[0] @ asked)
                for passage in document.passages
            }
            if how == "passage":
                scores |= of_passages
            elif how == "best-passage":
                scores[document.id] = max(of_passages.values())
            else:
                scores[document.id] = float(encoder.encode([document.text])[0] @ asked)
        gold = question.passage_id if how == "passage" else question.document_id
        assert gold is not None
        ordered = sorted(scores, key=lambda id_: -scores[id_])
        ranks.append(ordered.index(gold) + 1)
    return ranks


@pytest.mark.parametrize("how", ["whole", "best-passage", "passage"])
@pytest.mark.parametrize("budget", [1, 2**23])
def test_ranks_are_what_plain_dot_products_give(
    encoder: Any, corpus: Corpus, how: Any, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BUDGET", budget)
    settings = (
        EvaluationSettings("passage") if how == "passage" else EvaluationSettings("document", how)
    )
    results = evaluate(encoder, corpus, settings, split="dev")
    assert list(results.languages) == ["en", "de", "fi"]
    for language, result in results.languages.items():
        assert result.ranks is not None
        assert result.ranks.tolist() == reference_ranks(encoder, corpus, language, how)
    assert (results.encoder, results.weights, results.split) == ("words", "crc32", "dev")
    assert set(results.means) == {"supported", "unsupported"}


def test_each_distinct_text_is_encoded_once(encoder: Any, corpus: Corpus) -> None:
    evaluator = RetrievalEvaluator(corpus, EvaluationSettings("document", "best-passage"))
    evaluator(encoder)
    assert set(encoder.encoded.values()) == {1}
    # "bees make honey" is asked in two languages, and is also a passage.
    assert evaluator.question_texts.count("bees make honey") == 1
    assert len(evaluator.candidate_texts) == 6


def test_vectors_can_be_handed_in_and_the_evaluator_used_again(
    encoder: Any, corpus: Corpus
) -> None:
    evaluator = RetrievalEvaluator(corpus)
    reference = evaluator(encoder)

    def reversed_vectors(texts: Any, kind: Any) -> np.ndarray:
        return np.ascontiguousarray(encoder.encode(texts, kind)[:, ::-1])

    assert evaluator(encoder, reversed_vectors) == reference


def test_a_language_is_searched_in_its_own_pool(encoder: Any, corpus: Corpus) -> None:
    [german] = [task for task in RetrievalEvaluator(corpus).tasks if task.language == "de"]
    assert german.scored.ids == ("bears", "bees")


def test_a_passage_with_the_gold_text_ranks_before_the_gold(encoder: Any, corpus: Corpus) -> None:
    twin = Document("twin", "twin", (Passage("twin#0", "twin", "bees make honey"),))
    richer = replace(corpus, documents=(*corpus.documents, twin))
    settings = EvaluationSettings("passage")
    plain = evaluate(encoder, corpus, settings).languages["en"].ranks
    doubled = evaluate(encoder, richer, settings).languages["en"].ranks
    assert plain is not None
    assert doubled is not None
    assert (plain[0], doubled[0]) == (1, 2)


def test_only_some_languages(encoder: Any, corpus: Corpus) -> None:
    assert list(evaluate(encoder, corpus, languages=["fi", "de"]).languages) == ["de", "fi"]
    with pytest.raises(UnknownNameError, match="'el'"):
        evaluate(encoder, corpus, languages=["el"])


def test_a_gold_outside_the_pool_is_an_error(corpus: Corpus) -> None:
    lost = replace(corpus, pools={"de": ("bees",)})
    with pytest.raises(DataError, match=r"'de:1'.*document 'bears'.*language 'de'"):
        RetrievalEvaluator(lost)
    with pytest.raises(DataError, match=r"'de:1'.*passage 'bears#1'.*language 'de'"):
        RetrievalEvaluator(lost, EvaluationSettings("passage"))


def test_nothing_to_evaluate_is_an_error(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="no questions"):
        RetrievalEvaluator(corpus.with_questions([]))
    bare = replace(corpus, documents=(*corpus.documents, Document("bare", "bare", ())))
    with pytest.raises(DataError, match="'bare' has no passage"):
        RetrievalEvaluator(bare, EvaluationSettings("document", "best-passage"))


@pytest.mark.parametrize(
    ("pool", "score", "message"),
    [("sentence", "whole", "pool 'sentence'"), ("document", "mean", "score 'mean'")],
)
def test_wrong_settings(pool: Any, score: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        EvaluationSettings(pool, score)


# What mUSE finds without training on all 1,190 questions of XQuAD and on MLQA's dev files.
XQUAD = {
    ("document", "whole"): {
        **{"en": 0.797, "ar": 0.609, "de": 0.740, "es": 0.751, "ru": 0.664, "th": 0.703},
        **{"zh": 0.704, "tr": 0.669, "ro": 0.408, "el": 0.125, "hi": 0.046, "vi": 0.287},
    },
    ("document", "best-passage"): {
        **{"en": 0.906, "ar": 0.727, "de": 0.857, "es": 0.868, "ru": 0.800, "th": 0.795},
        **{"zh": 0.793, "tr": 0.789, "ro": 0.454, "el": 0.128, "hi": 0.061, "vi": 0.270},
    },
    ("passage", "whole"): {
        **{"en": 0.797, "ar": 0.614, "de": 0.724, "es": 0.723, "ru": 0.697, "th": 0.656},
        **{"zh": 0.672, "tr": 0.636, "ro": 0.312, "el": 0.078, "hi": 0.024, "vi": 0.153},
    },
}
MLQA = {"ar": 0.429, "de": 0.602, "es": 0.580, "zh": 0.522, "hi": 0.016, "vi": 0.247}


def test_muse_without_training_on_xquad(data_folder: Path, muse: MuseEncoder) -> None:
    corpus = load_corpus(data_folder / "xquad")
    vectors: dict[tuple[str, str], np.ndarray] = {}

    def encode(texts: Any, kind: Any) -> np.ndarray:
        missing = [text for text in texts if (text, kind) not in vectors]
        if missing:
            rows = muse.encode(missing, kind)
            vectors.update({(t, kind): row for t, row in zip(missing, rows, strict=True)})
        return np.stack([vectors[text, kind] for text in texts])

    for (pool, score), expected in XQUAD.items():
        settings = EvaluationSettings(pool, score)  # type: ignore[arg-type]
        results = RetrievalEvaluator(corpus, settings)(muse, encode)
        found = {code: row.hit_rate_at_1 for code, row in results.languages.items()}
        assert found == pytest.approx(expected, abs=0.006)
        assert {row.questions for row in results.languages.values()} == {1190}


def test_muse_without_training_on_mlqa(data_folder: Path, muse: MuseEncoder) -> None:
    corpus = take_split(load_corpus(data_folder / "mlqa"), "test")
    results = evaluate(muse, corpus, languages=list(MLQA))
    found = {code: row.hit_rate_at_1 for code, row in results.languages.items()}
    assert found == pytest.approx(MLQA, abs=0.006)
    counts = {code: row.questions for code, row in results.languages.items()}
    assert counts == {"ar": 517, "de": 512, "es": 500, "hi": 507, "vi": 511, "zh": 504}
