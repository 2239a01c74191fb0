"""What a model folder does not say, or says otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from clrelkt.encoders.transformer.pooling import check_modes
from clrelkt.errors import SettingsError

__all__ = ["TransformerOptions"]


@dataclass(frozen=True, slots=True)
class TransformerOptions:
    """How a transformer is loaded; None leaves what its folder says.

    ``pooling`` names one or several modes, whose vectors are joined. ``question_prompt`` and
    ``passage_prompt`` stand before every question and passage. ``max_length`` is the most tokens,
    prompt and marks included, that are read at once. ``languages`` are those that the model was
    trained on. ``dimension`` puts a linear layer behind the pooling that makes vectors of so many
    numbers; it begins at random, so the encoder is to be trained. ``trust_remote_code`` runs code
    that the model's author put into its folder; nothing else turns that on, and no command does.
    ``revision`` is a version of a model on the hub.
    """

    pooling: tuple[str, ...] | None = None
    question_prompt: str | None = None
    passage_prompt: str | None = None
    max_length: int | None = None
    languages: tuple[str, ...] | None = None
    dimension: int | None = None
    trust_remote_code: bool = False
    revision: str | None = None

    def __post_init__(self) -> None:
        if self.pooling is not None:
            check_modes(self.pooling)
        for name in ("max_length", "dimension"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} {value}: at least 1 expected")
