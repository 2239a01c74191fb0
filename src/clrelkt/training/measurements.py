"""What is measured after training beside a recipe's own test questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from clrelkt.corpora import Corpus, load_corpus, take_split
from clrelkt.corpora.pairs import find_pairs, hold_out
from clrelkt.encoders import Encoder
from clrelkt.evaluation import (
    Metrics,
    MixedPoolEvaluator,
    Results,
    RetrievalEvaluator,
    SentenceLevelEvaluator,
)
from clrelkt.evaluation.translation import translation_retrieval
from clrelkt.training.recipe import Measurement, Recipe

__all__ = ["measure"]


def measure(
    measurement: Measurement,
    encoders: Mapping[str, Encoder],
    recipe: Recipe,
    corpus: Corpus,
    split_seed: int,
) -> dict[str, dict[str, float]]:
    """Measure every encoder; return flat names to numbers of which a larger one is better.

    ``corpus`` is the recipe's, whole.

    Raises:
        DataError: there is nothing to measure on.
        CorpusError: a file has faults.
    """
    if measurement.kind == "translations":
        return _translations(measurement, encoders, recipe, corpus)
    asked = _asked(measurement, recipe, corpus, split_seed)
    split, languages = measurement.split, measurement.languages
    if measurement.kind == "mixed-pool":
        mixed = MixedPoolEvaluator(asked, split=split, languages=languages)
        return {name: dict(mixed(encoder).values) for name, encoder in encoders.items()}
    if measurement.kind == "sentences":
        sentences = SentenceLevelEvaluator(asked, split=split, languages=languages)
        return {name: dict(sentences(encoder).values) for name, encoder in encoders.items()}
    evaluator = RetrievalEvaluator(asked, measurement.evaluation, split=split, languages=languages)
    return {name: _values(evaluator(encoder)) for name, encoder in encoders.items()}


def _asked(measurement: Measurement, recipe: Recipe, corpus: Corpus, split_seed: int) -> Corpus:
    named = measurement.corpus
    whole = corpus if named is None or named == recipe.corpus else load_corpus(named)
    asked = take_split(whole, measurement.split, seed=split_seed, by=recipe.split_by)
    return asked.without_documents(measurement.leave_out) if measurement.leave_out else asked


def _values(results: Results) -> dict[str, float]:
    rows: dict[str, Metrics] = {"": results.mean}
    rows |= {f"/{code}": row for code, row in results.languages.items()}
    return {
        f"{metric}{name}": float(value)
        for name, row in rows.items()
        for metric, value in row.to_json().items()
        if metric != "questions"
    }


def _translations(
    measurement: Measurement, encoders: Mapping[str, Encoder], recipe: Recipe, corpus: Corpus
) -> dict[str, dict[str, float]]:
    languages = measurement.languages or _foreign(recipe, corpus)
    found = find_pairs([Path(measurement.source)], languages, kinds=("sentences",))
    held = [hold_out(pairs, measurement.held_out)[1] for pairs in found.values()]
    values: dict[str, dict[str, float]] = {}
    for name, encoder in encoders.items():
        rows = [translation_retrieval(encoder, pairs) for pairs in held]
        own = {f"to_english/{row.language}": row.to_english for row in rows}
        own |= {f"from_english/{row.language}": row.from_english for row in rows}
        for way in ("to_english", "from_english"):
            own[way] = sum(getattr(row, way) for row in rows) / len(rows)
        values[name] = own
    return values


def _foreign(recipe: Recipe, corpus: Corpus) -> Sequence[str]:
    codes = recipe.languages or corpus.languages
    return [code for code in codes if code != corpus.document_language]
