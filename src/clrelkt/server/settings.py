"""What a server may be asked for, and how much of it at once."""

from __future__ import annotations

from dataclasses import dataclass

from clrelkt.errors import SettingsError

__all__ = ["ServerSettings"]


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Limits of a server.

    Attributes:
        max_question: characters of a question.
        max_hits: hits of a search, and documents of a list.
        max_body: bytes of a request's body.
        max_target: bytes of a request's path and query.
        max_batch: questions that are encoded and searched at once; 1 is no batching.
        max_waiting: requests that wait for a batch; more get 503.
        max_per_client: requests of one address that are under way; more get 429. 0 is no limit.
        remembered: questions whose vectors are kept, the latest.
        read_hits: hits of a search that the reader looks for answers in.
        refresh_seconds: how often a newer version of the index is looked for.
        hosts: names that the server may be called by, in lower case and without a port; none is
            any. It keeps a page elsewhere from reading the index by a name that it has made point
            to this machine.
    """

    max_question: int = 1000
    max_hits: int = 100
    max_body: int = 65_536
    max_target: int = 16_384
    max_batch: int = 64
    max_waiting: int = 512
    max_per_client: int = 128
    remembered: int = 10_000
    read_hits: int = 3
    refresh_seconds: float = 1.0
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("max_question", "max_hits", "max_body", "max_target", "max_batch"):
            self._at_least(name, 1)
        for name in ("max_waiting", "read_hits"):
            self._at_least(name, 1)
        for name in ("max_per_client", "remembered"):
            self._at_least(name, 0)
        if not self.refresh_seconds > 0:
            raise SettingsError(f"refresh_seconds is {self.refresh_seconds}; above 0 expected")

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value < least:
            raise SettingsError(f"{name} is {value}; at least {least} expected")
