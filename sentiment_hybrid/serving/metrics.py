"""What the service counts and measures, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of one service, in a registry of their own.

    Args:
        waiting: gives the texts that wait for an answer.
    """

    def __init__(self, waiting: Callable[[], float]) -> None:
        self._registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        PlatformCollector(registry=own)
        self._requests = Counter("senthy_requests", "Requests answered.", ["path", "status"], registry=own)
        self._seconds = Histogram(
            "senthy_request_seconds", "Time to answer a request.", ["path"], buckets=_SECONDS, registry=own
        )
        self._texts = Counter("senthy_texts", "Texts computed.", registry=own)
        self._batch = Histogram("senthy_batch_texts", "Texts computed together.", buckets=_TEXTS, registry=own)
        self._batch_seconds = Histogram(
            "senthy_batch_seconds", "Time to compute a batch.", buckets=_SECONDS, registry=own
        )
        self._reloads = Counter("senthy_reloads", "Newly published models.", ["result"], registry=own)
        self._model = Info("senthy_model", "The model in use.", registry=own)
        Gauge("senthy_waiting_texts", "Texts waiting for an answer.", registry=own).set_function(waiting)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, texts: int, seconds: float) -> None:
        """Count a computed batch."""
        self._texts.inc(texts)
        self._batch.observe(texts)
        self._batch_seconds.observe(seconds)

    def model(self, model_id: str, head: str) -> None:
        """Set the model in use."""
        self._model.info({"id": model_id, "head": head})

    def reload(self, result: str) -> None:
        """Count a newly published model: ``loaded``, ``failed`` or ``gone``."""
        self._reloads.labels(result).inc()

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)
