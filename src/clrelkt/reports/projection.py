"""Vectors of several encoders in one plane, so that pictures of them compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Projection", "project"]

_COMPONENTS = 50
_PERPLEXITY = 30.0
_ROUNDS = 750


@dataclass(frozen=True)
class Projection:
    """Points in the plane by encoder, each (texts, 2), from 0 to 1; ``method`` made them."""

    method: str
    points: Mapping[str, np.ndarray]


def project(vectors: Mapping[str, np.ndarray], kinds: np.ndarray) -> Projection:
    """Lay out the vectors of all encoders together.

    Questions and passages lie apart as two groups, whatever they are about; so the mean of each
    kind is taken away from its vectors first, encoder by encoder.

    t-SNE (van der Maaten and Hinton, JMLR 2008) from scikit-learn, of the first principal
    components and starting from them, so that no random number is needed; the first two
    components themselves where scikit-learn is not installed.

    Args:
        vectors: by encoder, shape (texts, dimension), the same texts in each.
        kinds: which kind each text is of, shape (texts,).
    """
    stacked = np.concatenate([_centred(rows, kinds) for rows in vectors.values()])
    components = _principal_components(stacked)
    laid_out = _tsne(components)
    method = "PCA" if laid_out is None else "t-SNE"
    points = _within_square(components[:, :2] if laid_out is None else laid_out)
    ends = np.cumsum([len(rows) for rows in vectors.values()])[:-1]
    return Projection(method, dict(zip(vectors, np.split(points, ends), strict=True)))


def _centred(rows: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    centred = rows.astype(np.float64)
    for kind in np.unique(kinds):
        centred[kinds == kind] -= centred[kinds == kind].mean(0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    made: np.ndarray = centred / np.where(lengths > 0, lengths, 1.0)
    return made


def _principal_components(stacked: np.ndarray) -> np.ndarray:
    centred = stacked - stacked.mean(0)
    values, directions = np.linalg.eigh(centred.T @ centred)
    chosen = directions[:, np.argsort(-values, kind="stable")[: max(2, _COMPONENTS)]]
    # An eigenvector's sign is free; the largest number of each shall be above 0.
    largest = np.abs(chosen).argmax(0)
    chosen = chosen * np.where(chosen[largest, np.arange(chosen.shape[1])] < 0, -1.0, 1.0)
    made: np.ndarray = centred @ chosen
    return made


def _tsne(components: np.ndarray) -> np.ndarray | None:
    perplexity = min(_PERPLEXITY, (len(components) - 1) / 3)
    if perplexity < 2:
        return None
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError:
        return None
    start = components[:, :2] / (components[:, 0].std() or 1.0) * 1e-4
    # Several threads would add up in an order of their own each time.
    with threadpool_limits(1):
        tsne = TSNE(
            perplexity=perplexity, init=start.astype(np.float32), max_iter=_ROUNDS, random_state=0
        )
        made: np.ndarray = tsne.fit_transform(components.astype(np.float32))
    return made if np.isfinite(made).all() else None


def _within_square(points: np.ndarray) -> np.ndarray:
    low, high = points.min(0), points.max(0)
    made: np.ndarray = (points - low) / np.where(high > low, high - low, 1.0)
    return made
