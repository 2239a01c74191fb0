"""How well encoders find answers."""

from __future__ import annotations

from clrelkt.evaluation.baselines import evaluate_bm25
from clrelkt.evaluation.errors import WrongAnswer, find_errors, write_errors
from clrelkt.evaluation.metrics import gold_ranks, hit_rate, reciprocal_rank
from clrelkt.evaluation.mixed_pool import MixedPoolEvaluator, MixedPoolLanguage, MixedPoolResult
from clrelkt.evaluation.paper import printed, printed_alike, printed_results
from clrelkt.evaluation.results import METRICS, LanguageResult, MetricName, Metrics, Results
from clrelkt.evaluation.retrieval import EvaluationSettings, RetrievalEvaluator, evaluate
from clrelkt.evaluation.seeds import Estimate, SeedSummary, aggregate
from clrelkt.evaluation.sentence_level import SentenceLevelEvaluator, SentenceLevelResult
from clrelkt.evaluation.significance import Comparison, Difference, compare, compare_values, holm

__all__ = [
    "METRICS",
    "Comparison",
    "Difference",
    "Estimate",
    "EvaluationSettings",
    "LanguageResult",
    "MetricName",
    "Metrics",
    "MixedPoolEvaluator",
    "MixedPoolLanguage",
    "MixedPoolResult",
    "Results",
    "RetrievalEvaluator",
    "SeedSummary",
    "SentenceLevelEvaluator",
    "SentenceLevelResult",
    "WrongAnswer",
    "aggregate",
    "compare",
    "compare_values",
    "evaluate",
    "evaluate_bm25",
    "find_errors",
    "gold_ranks",
    "hit_rate",
    "holm",
    "printed",
    "printed_alike",
    "printed_results",
    "reciprocal_rank",
    "write_errors",
]
