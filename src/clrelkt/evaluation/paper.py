"""The figures that the paper prints, to be shown beside ours.

Limkonchotiwat et al., CL-ReLKT: Cross-lingual Language Knowledge Transfer for Multilingual
Retrieval Question Answering, Findings of NAACL 2022: the student for the supported languages. The
unsupported languages' figures come from that same student, which was not trained on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from clrelkt.evaluation.results import LanguageResult, Results, groups_of

__all__ = ["PAPER_NAME", "printed", "printed_alike", "printed_results"]

PAPER_NAME = "CL-ReLKT (paper)"
"""How the printed figures are called in results."""

_UNSUPPORTED = frozenset({"fi", "hi", "vi", "ro", "el"})

# Questions, P@1, P@5, P@10, MRR@10.
_PRINTED: Mapping[str, Mapping[str, tuple[int, float, float, float, float]]] = {
    "xorqa": {
        "ru": (349, 0.582, 0.797, 0.854, 0.671),
        "ko": (474, 0.477, 0.707, 0.783, 0.573),
        "ja": (386, 0.495, 0.720, 0.788, 0.591),
        "fi": (371, 0.248, 0.353, 0.394, 0.295),
    },
    "mlqa": {
        "ar": (517, 0.485, 0.689, 0.764, 0.570),
        "de": (512, 0.648, 0.824, 0.877, 0.723),
        "es": (500, 0.628, 0.810, 0.856, 0.701),
        "zh": (504, 0.579, 0.778, 0.847, 0.665),
        "hi": (507, 0.020, 0.047, 0.091, 0.035),
        "vi": (511, 0.280, 0.364, 0.425, 0.318),
    },
    "xquad": {
        "ar": (238, 0.794, 0.899, 0.933, 0.843),
        "de": (238, 0.832, 0.912, 0.954, 0.871),
        "es": (238, 0.840, 0.941, 0.962, 0.882),
        "ru": (238, 0.832, 0.933, 0.958, 0.871),
        "th": (238, 0.857, 0.945, 0.983, 0.896),
        "zh": (238, 0.824, 0.929, 0.945, 0.866),
        "tr": (238, 0.803, 0.912, 0.954, 0.860),
        "ro": (238, 0.525, 0.693, 0.794, 0.605),
        "el": (238, 0.101, 0.202, 0.319, 0.150),
        "hi": (238, 0.063, 0.168, 0.303, 0.111),
        "vi": (238, 0.298, 0.420, 0.525, 0.359),
    },
}


def printed(corpus: str) -> Mapping[str, LanguageResult]:
    """Return the paper's figures on ``corpus``, by language; none where the paper has none."""
    return MappingProxyType(
        {
            language: LanguageResult(
                questions=questions,
                hit_rate_at_1=first,
                hit_rate_at_5=fifth,
                hit_rate_at_10=tenth,
                mrr_at_10=mrr,
            )
            for language, (questions, first, fifth, tenth, mrr) in _PRINTED.get(corpus, {}).items()
        }
    )


def printed_results(corpus: str) -> Results | None:
    """Return the paper's figures as one row of a table, or None where the paper has none."""
    languages = printed(corpus)
    if not languages:
        return None
    known = frozenset(languages) - _UNSUPPORTED
    return Results.of(
        languages,
        groups_of(languages, known, "en"),
        encoder=PAPER_NAME,
        weights="as printed",
        corpus=corpus,
        pool="document",
        document_score="whole",
        split="test",
    )


def printed_alike(corpus: str, pool: str, document_score: str) -> Results | None:
    """Return the paper's figures where they are of the same kind of test, else None."""
    found = printed_results(corpus)
    if found is None or (found.pool, found.document_score) != (pool, document_score):
        return None
    return found
