"""What a server counts, in Prometheus's text format."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "clrelkt_requests",
            "Requests answered.",
            ("path", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "clrelkt_request_seconds",
            "Time from a request's head to its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.under_way = Gauge(
            "clrelkt_requests_under_way", "Requests under way.", registry=self._registry
        )
        self.batches = Histogram(
            "clrelkt_batch_questions",
            "Questions that were searched together.",
            buckets=_BATCHES,
            registry=self._registry,
        )
        self.search_seconds = Histogram(
            "clrelkt_batch_seconds",
            "Time to encode and search a batch.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.reading_seconds = Histogram(
            "clrelkt_reading_seconds",
            "Time to read a batch of passages.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.switches = Counter(
            "clrelkt_index_switches", "Changes to a newer index.", registry=self._registry
        )
        self.failed_refreshes = Counter(
            "clrelkt_index_refresh_failures",
            "Newer versions of the index that could not be opened.",
            registry=self._registry,
        )

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show ``value`` as it is when the metrics are asked for."""
        Gauge(f"clrelkt_{name}", text, registry=self._registry).set_function(value)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request; ``path`` is one of a few, not what the client wrote."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """Return all metrics."""
        return generate_latest(self._registry)
