"""One detector for many requests: decode in threads, batch, look, and say how long each step took.

Shape suffix: D detections of an image.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from retinanet.images import Scaled, resized_size
from retinanet.serve.batching import Batcher, Places
from retinanet.serve.uploads import to_input

if TYPE_CHECKING:
    import supervision as sv

    from retinanet.config import ImageConfig, PostprocessConfig, ServeConfig, TileConfig
    from retinanet.predict.dense import DenseOutputs
    from retinanet.serve.metrics import Metrics
    from retinanet.serve.uploads import Upload
    from retinanet.types import ArrayDetections

DECODED_AHEAD = 2
"""Decoded images that wait for the network at the most, in batches: the others wait as they were sent, compressed."""
FILTERED_FROM = 1000
"""Detections that are asked of the network where a filter by class follows, so that it leaves enough."""


class Served(Protocol):
    """What is served: `retinanet.load` returns one."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class id."""

    @property
    def image_config(self) -> ImageConfig:
        """How images become input."""

    @property
    def postprocess_config(self) -> PostprocessConfig:
        """How outputs become detections."""

    @property
    def tiling(self) -> TileConfig:
        """How images are cut into tiles."""

    def detect(self, images: Sequence[Scaled], *, config: PostprocessConfig | None = None) -> list[ArrayDetections]:
        """Return the detections of decoded images that go through the network as one batch."""

    def dense(self, source: Scaled) -> DenseOutputs:
        """Return what every level says at every position."""

    def stream(self, batches: Any, *, workers: int, threshold: float | None = None) -> Any:
        """Yield what becomes of each image, cut into tiles where the model wants that."""

    def named(self, detections: ArrayDetections) -> sv.Detections:
        """Return the detections for supervision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What is to be found in an image."""

    threshold: float
    max_detections: int
    labels: tuple[int, ...] | None = None
    """Class ids that are wanted; None: all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What was found in an image, and how long it took, milliseconds."""

    name: str
    width: int
    height: int
    detections: ArrayDetections
    milliseconds: dict[str, float]


@dataclass(slots=True)
class _Item:
    """What goes to the network's thread; it notes there when it began and ended."""

    scaled: Scaled
    asked: Asked | None
    """None: the dense outputs are wanted."""
    data: bytes | None = None
    """The image as it was sent, where it is to be cut into tiles."""
    began: float = 0.0
    ended: float = 0.0


class Service:
    """A detector with its threads, in one event loop.

    Args:
        detector: what looks at images.
        config: limits.
        metrics: what is counted.
    """

    def __init__(self, detector: Served, config: ServeConfig, metrics: Metrics) -> None:
        self.detector = detector
        self.config = config
        self.metrics = metrics
        self.places = Places(config.max_queue, metrics.places_taken.set)
        metrics.places.set(config.max_queue)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.pool = ThreadPoolExecutor(max(1, cores // config.workers), thread_name_prefix="retinanet-decode")
        self._ahead = asyncio.Semaphore(DECODED_AHEAD * config.max_batch)
        self._batcher: Batcher[_Item, Any] = Batcher(
            self._work,
            key=self._key,
            max_batch=config.max_batch,
            max_wait=config.max_wait_ms / 1000,
            coming=lambda: self._decoding,
            done=self._done,
        )
        self._decoding = 0

    def start(self) -> None:
        """Start, with a first look at an empty image: what is set up on first use is not left to the first client."""
        size = self.detector.image_config.image_size
        self.detector.detect([Scaled(Image.new("RGB", (size, size)), size, size)])
        self._batcher.start()

    def stop(self) -> None:
        """Finish what was accepted."""
        self._batcher.stop()
        self.pool.shutdown(cancel_futures=True)

    @property
    def running(self) -> bool:
        """Whether images are looked at."""
        return self._batcher.running

    async def detect(self, upload: Upload, asked: Asked) -> Answer:
        """Return what is in an image. Raises `RefusedError`."""
        start = time.perf_counter()
        data = upload.data if self.detector.tiling.tile else None
        item, found = await self._look(upload, asked, data)
        found = _select(found, asked)
        for name, count in zip(*np.unique(found.labels_D, return_counts=True), strict=True):
            self.metrics.detections.labels(self.detector.classes[name]).inc(int(count))
        return Answer(
            name=upload.name,
            width=item.scaled.width,
            height=item.scaled.height,
            detections=found,
            milliseconds=self._times(start, item),
        )

    async def dense(self, upload: Upload) -> tuple[DenseOutputs, int, int, dict[str, float]]:
        """Return what every level says of an image, its width and height, and the times. Raises `RefusedError`."""
        start = time.perf_counter()
        item, dense = await self._look(upload, None, None)
        return dense, item.scaled.width, item.scaled.height, self._times(start, item)

    async def _look(self, upload: Upload, asked: Asked | None, data: bytes | None) -> tuple[_Item, Any]:
        loop = asyncio.get_running_loop()
        self._decoding += 1
        decoded = False
        try:
            async with self._ahead:
                begin = time.perf_counter()
                item = _Item(await loop.run_in_executor(self.pool, self._decode, upload), asked, data)
                self.metrics.stages.labels("decode").observe(time.perf_counter() - begin)
                self._decoding -= 1
                decoded = True
                return item, await self._batcher.submit(item)
        finally:
            if not decoded:
                self._decoding -= 1

    def _decode(self, upload: Upload) -> Scaled:
        config = self.detector.image_config
        return to_input(
            upload, image_size=config.image_size, max_size=config.max_size, max_pixels=self.config.max_pixels
        )

    def _times(self, start: float, item: _Item) -> dict[str, float]:
        now = time.perf_counter()
        self.metrics.stages.labels("wait").observe(max(0.0, item.began - start))
        self.metrics.stages.labels("network").observe(item.ended - item.began)
        spans = {"before": item.began - start, "network": item.ended - item.began, "total": now - start}
        return {name: round(1000 * span, 2) for name, span in spans.items()}

    def _key(self, item: _Item) -> object:
        """Return the size of the padded input, which those that share a batch have in common."""
        if item.asked is None or item.data is not None:
            return item
        config = self.detector.image_config
        size = resized_size(
            item.scaled.width, item.scaled.height, image_size=config.image_size, max_size=config.max_size
        )
        return tuple(-(-side // config.size_divisor) for side in size)

    def _work(self, items: Sequence[_Item]) -> list[Any]:
        began = time.perf_counter()
        results = self._results(items)
        for item in items:
            item.began, item.ended = began, time.perf_counter()
        return results

    def _results(self, items: Sequence[_Item]) -> list[Any]:
        if items[0].asked is None:
            return [self.detector.dense(item.scaled) for item in items]
        # One batch at the lowest threshold: what overlaps is dropped from the best on, so that the detections above a
        # higher threshold are the same as if it had been looked at with that one, and the first n are the best n.
        asked = [item.asked for item in items if item.asked is not None]
        threshold = min(one.threshold for one in asked)
        if items[0].data is not None:
            (found,) = self.detector.stream([[items[0].data]], workers=0, threshold=threshold)
            return [found.result()]
        config = dataclasses.replace(
            self.detector.postprocess_config,
            score_threshold=threshold,
            max_detections=max(
                one.max_detections if one.labels is None else max(FILTERED_FROM, one.max_detections) for one in asked
            ),
        )
        return list(self.detector.detect([item.scaled for item in items], config=config))

    def _done(self, images: int, seconds: float) -> None:
        self.metrics.batches.observe(images)
        self.places.worked(seconds, images)


def _select(found: ArrayDetections, asked: Asked) -> ArrayDetections:
    keep_D = found.scores_D > asked.threshold
    if asked.labels is not None:
        keep_D &= np.isin(found.labels_D, asked.labels)
    return found[keep_D][: asked.max_detections]
