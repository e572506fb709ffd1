"""Run one detector for many requests: decode images in threads, batch them, detect, and measure each stage.

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

from retinanet.images import Scaled, padded_size, resized_size
from retinanet.predict.detector import above
from retinanet.serve.batching import Batcher, Slots
from retinanet.serve.uploads import to_input

if TYPE_CHECKING:
    import numpy.typing as npt
    import supervision as sv

    from retinanet.checkpoint.model_info import ModelInfo
    from retinanet.config import ImageConfig, PostprocessConfig, ServeConfig, TileConfig
    from retinanet.predict.dense import DenseOutputs
    from retinanet.serve.metrics import Metrics
    from retinanet.serve.uploads import Upload
    from retinanet.types import ArrayDetections

DECODED_BATCHES = 2
"""Maximum number of batches of decoded images waiting for the network. Other images wait compressed, to save memory."""
DETECTIONS_BEFORE_FILTER = 1000
"""Minimum number of detections requested from the network if a filter by class follows, so that enough are left."""


class ServedDetector(Protocol):
    """The parts of a detector that the server uses. `retinanet.load` returns such a detector."""

    @property
    def info(self) -> ModelInfo:
        """Classes and settings of the model."""

    @property
    def device(self) -> object:
        """Device that runs the network; its text names the device."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class id."""

    @property
    def image_config(self) -> ImageConfig:
        """Resizing and padding of images."""

    @property
    def postprocess_config(self) -> PostprocessConfig:
        """Thresholds and limits of detections."""

    @property
    def tiling(self) -> TileConfig:
        """Size and overlap of tiles; tile 0 means no tiles."""

    def check_nms(self, config: PostprocessConfig) -> None:
        """Raise `ConfigError` if the model cannot run the NMS of `config`."""

    def detect(self, images: Sequence[Scaled], *, config: PostprocessConfig | None = None) -> list[ArrayDetections]:
        """Return the detections of each decoded image. All images form one batch."""

    def dense(self, source: Scaled) -> DenseOutputs:
        """Return scores and boxes at every position of every feature level."""

    def assigned_objects(
        self, dense: DenseOutputs, boxes_G4: npt.NDArray[np.floating], labels_G: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64] | None:
        """Return the object that training makes each anchor positive for, or -1; None for an exported model."""

    def stream(
        self, batches: Any, *, workers: int, threshold: float | None = None, agnostic_nms: bool | None = None
    ) -> Any:
        """Yield a result for each image of the batches, cut into tiles if `tiling` is set."""

    def named(self, detections: ArrayDetections) -> sv.Detections:
        """Return the detections as supervision's type, with class names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectSettings:
    """Threshold, limit, class filter and NMS of a detection request."""

    threshold: float
    max_detections: int
    class_thresholds: tuple[float, ...] | None = None
    """Threshold of each class; `threshold` is the lowest of them. None: `threshold` for all classes."""
    labels: tuple[int, ...] | None = None
    """Class ids to return. None: all classes."""
    agnostic_nms: bool = False
    """Whether a box suppresses overlapping boxes of every class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDetections:
    """Detections of an image, with its size in original pixels and the duration of each stage."""

    name: str
    width: int
    height: int
    detections: ArrayDetections
    milliseconds: dict[str, float]


@dataclass(slots=True)
class _Item:
    """An image for the batcher. The network thread sets `began` and `ended`, seconds of `time.perf_counter`."""

    scaled: Scaled
    settings: DetectSettings | None
    """None: dense outputs are requested instead of detections."""
    data: bytes | None = None
    """The encoded image, if it is to be cut into tiles."""
    began: float = 0.0
    ended: float = 0.0


class Service:
    """A detector with its decoding threads and its network thread, for one event loop.

    Args:
        detector: the loaded model.
        config: limits of the server.
        metrics: counters to update.
    """

    def __init__(self, detector: ServedDetector, config: ServeConfig, metrics: Metrics) -> None:
        self.detector = detector
        self.config = config
        self.metrics = metrics
        self.slots = Slots(config.max_queue, metrics.slots_used.set)
        metrics.slots.set(config.max_queue)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.pool = ThreadPoolExecutor(max(1, cores // config.workers), thread_name_prefix="retinanet-decode")
        self._decoded_limit = asyncio.Semaphore(DECODED_BATCHES * config.max_batch)
        self._batcher: Batcher[_Item, Any] = Batcher(
            self._work,
            key=self._key,
            max_batch=config.max_batch,
            max_wait=config.max_wait_ms / 1000,
            coming=lambda: self._decoding,
            on_batch=self._record_batch,
        )
        self._decoding = 0

    def start(self) -> None:
        """Start the network thread.

        Before that, run the detector on a black image: its one-time setup must not delay the first request.
        """
        size = self.detector.image_config.image_size
        self.detector.detect([Scaled(Image.new("RGB", (size, size)), size, size)])
        self._batcher.start()

    def stop(self) -> None:
        """Finish the images in progress, then end all threads."""
        self._batcher.stop()
        self.pool.shutdown(cancel_futures=True)

    @property
    def running(self) -> bool:
        """Whether the service accepts images."""
        return self._batcher.running

    async def detect(self, upload: Upload, settings: DetectSettings) -> ImageDetections:
        """Return the detections in an image. Raises `RefusedError` if the image is too large or cannot be decoded."""
        start = time.perf_counter()
        data = upload.data if self.detector.tiling.tile else None
        item, detections = await self._process(upload, settings, data)
        detections = _select(detections, settings)
        for label, count in zip(*np.unique(detections.labels_D, return_counts=True), strict=True):
            self.metrics.detections.labels(self.detector.classes[label]).inc(int(count))
        return ImageDetections(
            name=upload.name,
            width=item.scaled.width,
            height=item.scaled.height,
            detections=detections,
            milliseconds=self._times(start, item),
        )

    async def dense(self, upload: Upload) -> tuple[DenseOutputs, int, int, dict[str, float]]:
        """Return the dense outputs of an image, its width and height in original pixels, and the times per stage, ms.

        Raises:
            RefusedError: the image is too large or cannot be decoded.
        """
        start = time.perf_counter()
        item, dense = await self._process(upload, None, None)
        return dense, item.scaled.width, item.scaled.height, self._times(start, item)

    async def _process(self, upload: Upload, settings: DetectSettings | None, data: bytes | None) -> tuple[_Item, Any]:
        loop = asyncio.get_running_loop()
        self._decoding += 1
        decoded = False
        try:
            async with self._decoded_limit:
                begin = time.perf_counter()
                item = _Item(await loop.run_in_executor(self.pool, self._decode, upload), settings, data)
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
            upload,
            image_size=config.image_size,
            max_size=config.max_size,
            bit_depth=config.bit_depth,
            max_pixels=self.config.max_pixels,
        )

    def _times(self, start: float, item: _Item) -> dict[str, float]:
        now = time.perf_counter()
        self.metrics.stages.labels("wait").observe(max(0.0, item.began - start))
        self.metrics.stages.labels("network").observe(item.ended - item.began)
        spans = {"before": item.began - start, "network": item.ended - item.began, "total": now - start}
        return {name: round(1000 * span, 2) for name, span in spans.items()}

    def _key(self, item: _Item) -> object:
        """Return the key of an item: padded size and kind of NMS, or the item itself if it cannot share a batch."""
        if item.settings is None or item.data is not None:
            return item
        config = self.detector.image_config
        size = resized_size(
            item.scaled.width, item.scaled.height, image_size=config.image_size, max_size=config.max_size
        )
        return *padded_size(*size, divisor=config.size_divisor), item.settings.agnostic_nms

    def _work(self, items: Sequence[_Item]) -> list[Any]:
        began = time.perf_counter()
        results = self._results(items)
        for item in items:
            item.began, item.ended = began, time.perf_counter()
        return results

    def _results(self, items: Sequence[_Item]) -> list[Any]:
        if items[0].settings is None:
            return [self.detector.dense(item.scaled) for item in items]
        # The batch runs at the lowest threshold of its requests. NMS keeps boxes from the highest score down, so a box
        # below a request's own threshold never changes which boxes above that threshold are kept. For the same reason
        # the first n detections are the best n.
        settings = [item.settings for item in items if item.settings is not None]
        threshold, agnostic_nms = min(one.threshold for one in settings), settings[0].agnostic_nms
        if items[0].data is not None:
            batches = [[items[0].data]]
            (result,) = self.detector.stream(batches, workers=0, threshold=threshold, agnostic_nms=agnostic_nms)
            return [result.result()]
        config = dataclasses.replace(
            self.detector.postprocess_config,
            score_threshold=threshold,
            agnostic_nms=agnostic_nms,
            max_detections=max(
                one.max_detections if one.labels is None else max(DETECTIONS_BEFORE_FILTER, one.max_detections)
                for one in settings
            ),
        )
        return list(self.detector.detect([item.scaled for item in items], config=config))

    def _record_batch(self, images: int, seconds: float) -> None:
        self.metrics.batches.observe(images)
        self.slots.record_batch(seconds, images)


def _select(detections: ArrayDetections, settings: DetectSettings) -> ArrayDetections:
    if settings.class_thresholds is not None:
        detections = above(detections, settings.class_thresholds)
    keep_D = detections.scores_D > settings.threshold
    if settings.labels is not None:
        keep_D &= np.isin(detections.labels_D, settings.labels)
    return detections[keep_D][: settings.max_detections]
