"""What `/metrics` shows, in Prometheus' text format, over all workers.

Workers of one service share a folder (PROMETHEUS_MULTIPROC_DIR), in which each keeps its numbers.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
MEDIA_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The numbers of this process; `text` is those of all workers."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        # What is registered would be counted twice where workers share a folder.
        registry = None if SHARED_FOLDER in os.environ else self._registry
        self.requests = Counter(
            "van_requests_total", "requests answered", ["method", "path", "status"], registry=registry
        )
        self.seconds = Histogram(
            "van_request_seconds", "time from a request to its answer", ["path"], buckets=_SECONDS, registry=registry
        )
        self.refused = Counter("van_refused_total", "requests refused, by kind of problem", ["kind"], registry=registry)
        self.images = Counter("van_images_total", "images, by outcome", ["model", "outcome"], registry=registry)
        self.batch_images = Histogram(
            "van_batch_images", "images that ran together", ["model"], buckets=_BATCHES, registry=registry
        )
        self.run_seconds = Histogram(
            "van_run_seconds", "time of a batch in the network", ["model"], buckets=_SECONDS, registry=registry
        )
        self.queued_seconds = Histogram(
            "van_queued_seconds", "time a decoded image waited", ["model"], buckets=_SECONDS, registry=registry
        )
        self.pending = Gauge(
            "van_pending_images",
            "images accepted and not done",
            ["model"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.body_bytes = Gauge(
            "van_body_bytes", "bytes of request bodies in memory", registry=registry, multiprocess_mode="livesum"
        )

    def of_model(self, name: str) -> ModelMetrics:
        """The numbers of one model."""
        return ModelMetrics(self, name)

    def text(self) -> bytes:
        """All numbers, as Prometheus reads them."""
        if SHARED_FOLDER not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return generate_latest(registry)


class ModelMetrics:
    """The numbers of one model."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.pending = metrics.pending.labels(name)
        self._done, self._bad = metrics.images.labels(name, "done"), metrics.images.labels(name, "bad")
        self._batch, self._run = metrics.batch_images.labels(name), metrics.run_seconds.labels(name)
        self._queued = metrics.queued_seconds.labels(name)

    def batch(self, images: int, seconds: float) -> None:
        """A batch has run."""
        self._batch.observe(images)
        self._run.observe(seconds)

    def queued(self, seconds: float) -> None:
        """An image has waited."""
        self._queued.observe(seconds)

    def done(self, good: int, bad: int) -> None:
        """The images of a request are done."""
        self._done.inc(good)
        self._bad.inc(bad)
