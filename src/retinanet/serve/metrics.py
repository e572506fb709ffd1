"""What the server counts, for Prometheus; of all worker processes if `PROMETHEUS_MULTIPROC_DIR` is set."""

from __future__ import annotations

import os
from typing import Any, Final

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

MULTIPROCESS: Final = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one app. Every app has its own registry, so that several may live in a process."""

    def __init__(self) -> None:
        self._several = MULTIPROCESS in os.environ
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("retinanet_requests", "Requests answered.", ["path", "status"], **own)
        self.seconds = Histogram(
            "retinanet_request_seconds", "From the request's head to its answer.", ["path"], buckets=SECONDS, **own
        )
        self.stages = Histogram(
            "retinanet_stage_seconds",
            "Of an image: decode, wait (for the network), network (of its whole batch).",
            ["stage"],
            buckets=SECONDS,
            **own,
        )
        self.batches = Histogram("retinanet_batch_size", "Images that went through at once.", buckets=SIZES, **own)
        self.detections = Counter("retinanet_detections", "Detections in answers.", ["class_name"], **own)
        self.gone = Counter("retinanet_clients_gone", "Clients that went away before their answer.", **own)
        self.places_taken = Gauge(
            "retinanet_places_taken", "Images in the server now.", multiprocess_mode="livesum", **own
        )
        self.places = Gauge("retinanet_places", "Images that it takes at once.", multiprocess_mode="livesum", **own)
        if not self._several:
            for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
                self.registry.register(collector)

    def text(self) -> bytes:
        """Return all numbers in Prometheus' text format."""
        registry = self.registry
        if self._several:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
