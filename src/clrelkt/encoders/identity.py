"""What an encoder is called, whatever it is made of."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EncoderIdentity", "Identified"]


@dataclass(frozen=True, slots=True)
class EncoderIdentity:
    """What an encoder is called and where its weights come from.

    ``base`` names the published encoder that it started from, ``weights`` its weights.
    ``languages`` are those that it was trained on; empty where that is not known.
    """

    name: str
    base: str
    weights: str
    languages: frozenset[str]


class Identified:
    """What an encoder with an identity says of itself (see Encoder)."""

    identity: EncoderIdentity

    @property
    def name(self) -> str:
        """What a table calls it."""
        return self.identity.name

    @property
    def weights(self) -> str:
        """Which weights it holds."""
        return self.identity.weights

    @property
    def languages(self) -> frozenset[str]:
        """Languages it was trained on; empty where that is not known."""
        return self.identity.languages
