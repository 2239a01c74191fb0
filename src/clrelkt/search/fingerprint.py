"""Telling by its vectors whether an encoder is the one that an index was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from clrelkt.encoders.protocol import Encoder
from clrelkt.errors import SearchIndexError

__all__ = ["Fingerprint"]

_PROBES = (
    "Who discovered penicillin?",
    "ใครค้นพบเพนิซิลลิน",
    "谁发现了青霉素",
    "من اكتشف البنسلين؟",
    "पेनिसिलिन की खोज किसने की?",
    "Кто открыл пенициллин?",
    "The river is crossed by seven bridges, the oldest of which was built in 1209.",
)
_COSINE = 0.9995
"""Half precision and other devices change a cosine by less, another training by more."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """An encoder's name, weights, dimension, and its vectors of a few sentences."""

    name: str
    weights: str
    dimension: int
    probes: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, encoder: Encoder) -> Self:
        """Take an encoder's fingerprint; a folder's name is written down in full."""
        folder = Path(encoder.name)
        name = str(folder.resolve()) if folder.is_dir() else encoder.name
        vectors = encoder.encode(_PROBES)
        # Five digits are enough to compare by, and keep the file small.
        probes = tuple(tuple(round(float(x), 5) for x in vector) for vector in vectors)
        return cls(name, encoder.weights, encoder.dimension, probes)

    def is_alike(self, other: Fingerprint) -> bool:
        """Tell whether two fingerprints are of the same encoder."""
        if self.dimension != other.dimension:
            return False
        own, others = np.array(self.probes), np.array(other.probes)
        return bool(((own * others).sum(1) >= _COSINE).all())

    def check(self, encoder: Encoder, place: Path) -> None:
        """Refuse an encoder that is another one.

        Raises:
            SearchIndexError: it has another dimension, or gives other vectors.
        """
        advice = f"search with the encoder {self.name!r}, or index again"
        if encoder.dimension != self.dimension:
            raise SearchIndexError(
                f"{place}: made with vectors of {self.dimension} numbers, but encoder "
                f"{encoder.name!r} has {encoder.dimension}; {advice}"
            )
        cosines = (encoder.encode(_PROBES) * np.array(self.probes, np.float32)).sum(1)
        if not cosines.min() >= _COSINE:
            raise SearchIndexError(
                f"{place}: made with encoder {self.name!r} ({self.weights}); the vectors of "
                f"{encoder.name!r} ({encoder.weights}) are others (cosine {cosines.min():.4f} "
                f"where it should be 1); {advice}"
            )

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Return what ``to_json`` has written."""
        return cls(
            str(record["name"]),
            str(record["weights"]),
            int(record["dimension"]),
            tuple(tuple(map(float, vector)) for vector in record["probes"]),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "name": self.name,
            "weights": self.weights,
            "dimension": self.dimension,
            "probes": [list(vector) for vector in self.probes],
        }
