"""Count requests, times, batches and detections for Prometheus.

If `PROMETHEUS_MULTIPROC_DIR` is set, the metrics of all worker processes are added up.
"""

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
    """Metrics of one app. Each app has its own registry, so that a process can hold several apps."""

    def __init__(self) -> None:
        self._multiprocess = MULTIPROCESS in os.environ
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("retinanet_requests", "Answered requests.", ["path", "status"], **own)
        self.seconds = Histogram(
            "retinanet_request_seconds",
            "Seconds from the first byte of a request to its answer.",
            ["path"],
            buckets=SECONDS,
            **own,
        )
        self.stages = Histogram(
            "retinanet_stage_seconds",
            "Seconds per image by stage. decode: decoding. wait: decoding and waiting for the network. "
            "network: the network, for the whole batch of the image.",
            ["stage"],
            buckets=SECONDS,
            **own,
        )
        self.batches = Histogram("retinanet_batch_size", "Images per batch.", buckets=SIZES, **own)
        self.detections = Counter("retinanet_detections", "Detections in answers.", ["class_name"], **own)
        self.disconnects = Counter(
            "retinanet_clients_gone", "Requests whose client disconnected before the answer was ready.", **own
        )
        self.slots_used = Gauge(
            "retinanet_places_taken",
            "Slots in use: images in the server, from the first byte of the request to the answer.",
            multiprocess_mode="livesum",
            **own,
        )
        self.slots = Gauge(
            "retinanet_places",
            "Slots: limit of images in the server (--max-queue).",
            multiprocess_mode="livesum",
            **own,
        )
        if not self._multiprocess:
            for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
                self.registry.register(collector)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        registry = self.registry
        if self._multiprocess:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
