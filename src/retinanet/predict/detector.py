"""The base class of detectors. The torch detector and the torch-free runtime detector share this code.

Needs numpy, Pillow and supervision, never torch. Boxes are xyxy in original pixels, after EXIF rotation.
Shape suffixes: N batch, H, W, D detections of an image; 3 is RGB.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeVar, overload

import numpy as np
import supervision as sv
from PIL import Image

from retinanet.config import BatchConfig, ImageConfig, LoadingConfig, PostprocessConfig, TileConfig
from retinanet.images import Frame, ImageError, Scaled, decode_for, open_windows, prepare, tiles
from retinanet.predict.batches import ImageResult, InputBatch, Pixels, Source, batched, load_ahead
from retinanet.predict.merge import merge_tiles, merge_views
from retinanet.types import ArrayDetections

if TYPE_CHECKING:
    from retinanet.checkpoint.model_info import ModelInfo
    from retinanet.predict.dense import DenseOutputs

TTA_SCALES: Final = (0.8, 1.25)
"""Factors of the image size at which test-time augmentation detects, in addition to 1."""

S = TypeVar("S", bound=Source)


class BaseDetector(ABC):
    """A trained network with preprocessing and post-processing: from images to detections. A subclass runs the network.

    Args:
        info: classes, preprocessing, post-processing and tiling of the model.
    """

    device: object = "cpu"
    """Device that runs the network. Its text names the device: cpu, cuda:0, CPUExecutionProvider, ..."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each 0-based class id."""
        return self.info.classes

    @property
    def category_ids(self) -> tuple[int, ...]:
        """COCO category id of each class id."""
        return self.info.category_ids

    @property
    def image_config(self) -> ImageConfig:
        """Preprocessing: image size, padding and normalisation."""
        return self.info.image_config

    @property
    def postprocess_config(self) -> PostprocessConfig:
        """Post-processing: thresholds and the largest number of detections."""
        return self.info.postprocess_config

    @property
    def tiling(self) -> TileConfig:
        """Tiling of large images, unless a call overrides it."""
        return self.info.tiling

    @abstractmethod
    def _detect(self, batch: InputBatch, config: PostprocessConfig) -> list[ArrayDetections]:
        """Return the detections of each decoded image, best first, original pixels."""

    def _prepare(self, images: Sequence[Image.Image | Scaled], config: ImageConfig) -> tuple[Pixels, list[Frame]]:
        """Return the network input N3HW and the frame of each image."""
        return prepare(images, config)

    def detect(
        self, images: Sequence[Scaled | Image.Image], *, config: PostprocessConfig | None = None
    ) -> list[ArrayDetections]:
        """Return the detections of decoded images. The network processes all images as one batch, without tiling.

        Args:
            images: results of `images.decode_for` with the sizes of `image_config`, or upright RGB Pillow images.
            config: thresholds; None: those of the model.
        """
        if not images:
            return []
        pixels_N3HW, frames = self._prepare(images, self.image_config)
        batch = InputBatch(sources=[], errors=[], images_N3HW=pixels_N3HW, frames=frames)
        return self._detect(batch, config or self.postprocess_config)

    @abstractmethod
    def dense(self, source: Source | Scaled) -> DenseOutputs:
        """Return the predictions at every position of every feature level for one image.

        They show why an object is detected or missed.

        Raises:
            ImageError: the image cannot be decoded.
        """

    @overload
    def predict(  # type: ignore[overload-overlap]
        self,
        source: Source,
        *,
        threshold: float | None = None,
        tile: int | None = None,
        overlap: float = TileConfig.overlap,
        tta: bool = False,
    ) -> sv.Detections: ...
    @overload
    def predict(
        self,
        source: Sequence[Source],
        *,
        threshold: float | None = None,
        tile: int | None = None,
        overlap: float = TileConfig.overlap,
        tta: bool = False,
    ) -> list[sv.Detections]: ...
    def predict(
        self,
        source: Source | Sequence[Source],
        *,
        threshold: float | None = None,
        tile: int | None = None,
        overlap: float = TileConfig.overlap,
        tta: bool = False,
    ) -> sv.Detections | list[sv.Detections]:
        """Return the detections of one image, or of each image of a list; best first.

        Args:
            source: path, bytes of an image file, PIL image or array (H, W, 3), RGB uint8; or a list of such sources.
            threshold: lowest score of a detection; None: the model's `score_threshold` (0.05 unless changed).
            tile: side of the tiles into which large images are cut, original pixels; 0: no tiles; None: as in training.
            overlap: share of a tile that overlaps its neighbour.
            tta: test-time augmentation: also detect in flipped and rescaled images. It improves boxes at six times the
                cost.

        Raises:
            ImageError: an image cannot be decoded.
        """
        tiling = TileConfig(tile=tile, overlap=overlap)
        is_list = isinstance(source, list | tuple)
        sources: Sequence[Source] = source if is_list else [source]  # type: ignore[assignment, list-item]
        batches = batched(sources, BatchConfig.batch_size)
        results = self.stream(batches, workers=0, threshold=threshold, tiling=tiling, tta=tta)
        detections = [self.named(result.result()) for result in results]
        return detections if is_list else detections[0]

    def predict_batches(
        self,
        sources: Iterable[S],
        *,
        batch_size: int = BatchConfig.batch_size,
        workers: int = LoadingConfig.workers,
        threshold: float | None = None,
    ) -> Iterator[tuple[S, sv.Detections | ImageError]]:
        """Yield (source, detections) of each image in order. An image that cannot be decoded yields (source, error).

        The number of images is not limited: memory holds at most `workers` + 1 batches.

        Args:
            sources: images, as in `predict`.
            batch_size: number of images per batch.
            workers: number of threads that decode images.
            threshold: lowest score of a detection; None: the model's `score_threshold`.
        """
        for result in self.stream(batched(sources, batch_size), workers=workers, threshold=threshold):
            outcome = result.error if result.detections is None else self.named(result.detections)
            yield result.source, outcome  # type: ignore[misc]

    def stream(
        self,
        batches: Iterable[Sequence[Source]],
        *,
        workers: int,
        threshold: float | None = None,
        tiling: TileConfig | None = None,
        tta: bool = False,
    ) -> Iterator[ImageResult]:
        """Yield the result of each image, in order.

        Args:
            batches: batches of images.
            workers: number of threads that decode and resize images ahead of the network; 0: none.
            threshold: lowest score of a detection; None: the model's `score_threshold`.
            tiling: tiling of large images; None: as in training.
            tta: test-time augmentation: detect in six views of each image, flipped and rescaled.
        """
        if tiling is None or tiling.tile is None:
            tiling = self.tiling
        config = self.postprocess_config
        if threshold is not None:
            config = dataclasses.replace(config, score_threshold=threshold)
        for batch in load_ahead(batches, self._load, workers):
            readable = [source for source, error in zip(batch.sources, batch.errors, strict=True) if error is None]
            detections = zip(batch.frames, self._detect_views(readable, batch, config, tta), strict=True)
            for source, error in zip(batch.sources, batch.errors, strict=True):
                if error is not None:
                    yield ImageResult(source=source, error=error)
                    continue
                frame, found = next(detections)
                try:
                    if tiling.tile:
                        found = self._detect_in_tiles(source, frame, found, tiling, config, len(batch.sources), tta)
                except (
                    ImageError
                ) as decode_error:  # tiles decode parts of the file that the reduced whole image did not need
                    yield ImageResult(source=source, error=decode_error)
                    continue
                yield ImageResult(source=source, width=frame.width, height=frame.height, detections=found)

    def _detect_in_tiles(
        self,
        source: Source,
        frame: Frame,
        whole: ArrayDetections,
        tiling: TileConfig,
        config: PostprocessConfig,
        batch_size: int,
        tta: bool,
    ) -> ArrayDetections:
        """Return the detections of an image's tiles, in batches of `batch_size` tiles, merged with those in `whole`."""
        places = tiles(frame.width, frame.height, tile=tiling.tile or 0, overlap=tiling.overlap)
        if len(places) == 1:
            return whole
        parts: list[ArrayDetections] = []
        with open_windows(source) as image:
            for batch_places in batched(places, max(1, batch_size)):
                crops = [image.crop(place) for place in batch_places]
                parts += self._detect_views(crops, self._load(crops), config, tta)
        return merge_tiles(
            whole,
            parts,
            places,
            width=frame.width,
            height=frame.height,
            whole_from=tiling.whole_from,
            config=config,
        )

    def _detect_views(
        self, sources: Sequence[Source], batch: InputBatch, config: PostprocessConfig, tta: bool
    ) -> list[ArrayDetections]:
        """Return the detections of a batch. With `tta`, merge those of flipped images and of `TTA_SCALES` too."""
        detections = self._detect(batch, config)
        if not tta or not detections:
            return detections
        views = [detections, self._detect_flipped(batch, config)]
        for scale in TTA_SCALES:
            image_config = dataclasses.replace(
                self.image_config,
                image_size=round(self.image_config.image_size * scale),
                max_size=round(self.image_config.max_size * scale),
            )
            scaled = self._load(sources, image_config)
            views += [self._detect(scaled, config), self._detect_flipped(scaled, config)]
        return [merge_views(image_views, config=config) for image_views in zip(*views, strict=True)]

    def _detect_flipped(self, batch: InputBatch, config: PostprocessConfig) -> list[ArrayDetections]:
        """Return the detections in the horizontally flipped images, flipped back."""
        assert batch.images_N3HW is not None  # noqa: S101
        images_N3HW = np.zeros_like(batch.images_N3HW)
        for out_3HW, image_3HW, frame in zip(images_N3HW, batch.images_N3HW, batch.frames, strict=True):
            w = frame.resized_width
            out_3HW[:, :, :w] = image_3HW[:, :, :w][:, :, ::-1]
        out = []
        flipped = dataclasses.replace(batch, images_N3HW=images_N3HW)
        for found, frame in zip(self._detect(flipped, config), batch.frames, strict=True):
            x1, y1, x2, y2 = found.boxes_D4.T
            boxes_D4 = np.stack([frame.width - x2, y1, frame.width - x1, y2], axis=1)
            out.append(dataclasses.replace(found, boxes_D4=boxes_D4))
        return out

    def named(self, detections: ArrayDetections) -> sv.Detections:
        """Return the detections as `supervision.Detections`, with the class names in `data["class_name"]`."""
        return sv.Detections(
            xyxy=detections.boxes_D4,
            confidence=detections.scores_D,
            class_id=detections.labels_D,
            data={"class_name": np.array(self.classes, dtype=np.str_)[detections.labels_D]},
        )

    def _load(self, sources: Sequence[Source], config: ImageConfig | None = None) -> InputBatch:
        """Return the decoded, resized and padded sources; `config` defaults to that of the model."""
        config = config or self.image_config
        images: list[Scaled] = []
        errors: list[ImageError | None] = []
        for source in sources:
            try:
                images.append(decode_for(source, image_size=config.image_size, max_size=config.max_size))
                errors.append(None)
            except ImageError as error:
                errors.append(error)
        images_N3HW, frames = self._prepare(images, config) if images else (None, [])
        return InputBatch(sources=sources, errors=errors, images_N3HW=images_N3HW, frames=frames)
