from __future__ import annotations

import pytest

from clrelkt.text.alignment import align_tokens


class TestAlignment:
    def test_model_one_by_hand(self) -> None:
        # Two rounds over (10 | 1) and (10 11 | 1 2), with -1 for nothing on every right side.
        texts, translations = [[10], [10, 11]], [[1], [1, 2]]
        t = {(f, e): 1.0 for f in (10, 11) for e in (-1, 1, 2)}
        for _ in range(2):
            counts: dict[tuple[int, int], float] = {}
            for own, foreign in zip(texts, translations, strict=True):
                for f in own:
                    total = sum(t[f, e] for e in (-1, *foreign))
                    for e in (-1, *foreign):
                        counts[f, e] = counts.get((f, e), 0.0) + t[f, e] / total
            totals = {
                e: sum(c for (_, other), c in counts.items() if other == e) for e in (-1, 1, 2)
            }
            t = {(f, e): c / totals[e] for (f, e), c in counts.items()}
        found = align_tokens(texts, translations, rounds=2)
        got = {
            (int(f), int(e)): float(c)
            for f, e, c in zip(found.tokens, found.translations, found.counts, strict=True)
        }
        assert got == pytest.approx(counts)

    def test_long_and_empty_texts_are_left_out(self) -> None:
        found = align_tokens([[1] * 41, [2], [], [3]], [[5], [6] * 41, [7], [8]])
        assert set(found.tokens.tolist()) == {3}
        assert len(align_tokens([], []).tokens) == 0
