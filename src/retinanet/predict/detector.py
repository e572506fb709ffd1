"""Any trained network from images to named boxes: what the torch detector and the torch-free runtime share.

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
"""Sizes at which test-time augmentation looks at an image, besides its own."""

S = TypeVar("S", bound=Source)


class BaseDetector(ABC):
    """A network with all it takes to go from images to named boxes. How the network is run is up to the subclass.

    Args:
        info: classes, preprocessing, post-processing and tiling.
    """

    def __init__(self, info: ModelInfo) -> None:
        self.info = info

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each 0-based class id."""
        return self.info.classes

    @property
    def category_ids(self) -> tuple[int, ...]:
        """COCO's id of each class id."""
        return self.info.category_ids

    @property
    def image_config(self) -> ImageConfig:
        """How images become input."""
        return self.info.image_config

    @property
    def postprocess_config(self) -> PostprocessConfig:
        """How outputs become detections."""
        return self.info.postprocess_config

    @property
    def tiling(self) -> TileConfig:
        """How images are cut into tiles unless a call says otherwise."""
        return self.info.tiling

    @abstractmethod
    def _detect(self, batch: InputBatch, config: PostprocessConfig) -> list[ArrayDetections]:
        """Return the detections of each image that did decode, best first, original pixels."""

    def _prepare(self, images: Sequence[Image.Image | Scaled], config: ImageConfig) -> tuple[Pixels, list[Frame]]:
        """Return the network's input N3HW and the frame of each image."""
        return prepare(images, config)

    def detect(
        self, images: Sequence[Scaled | Image.Image], *, config: PostprocessConfig | None = None
    ) -> list[ArrayDetections]:
        """Return the detections of decoded images, which go through the network as one batch.

        Args:
            images: of `decode_for(source, image_size=..., max_size=...)` with those of `image_config`, or Pillow's in
                RGB, upright.
            config: thresholds; the model's own when None.
        """
        if not images:
            return []
        pixels_N3HW, frames = self._prepare(images, self.image_config)
        batch = InputBatch(sources=[], errors=[], images_N3HW=pixels_N3HW, frames=frames)
        return self._detect(batch, config or self.postprocess_config)

    @abstractmethod
    def dense(self, source: Source | Scaled) -> DenseOutputs:
        """Return what every level says at every position of one image: why an object is found, or missed.

        Raises:
            ImageError: an image that does not decode.
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
            source: path, bytes of a file, PIL image or array (H, W, 3), RGB uint8; or a list of these.
            threshold: least score; the model's own `score_threshold` (0.05 unless changed) when None.
            tile: side of the tiles that large images are cut into, original pixels; 0: not cut; None: as trained.
            overlap: share of a tile that its neighbour shows too.
            tta: look at the images flipped and at other sizes too: six times the work, better boxes.

        Raises:
            ImageError: an image that does not decode.
        """
        tiling = TileConfig(tile=tile, overlap=overlap)
        many = isinstance(source, list | tuple)
        sources: Sequence[Source] = source if many else [source]  # type: ignore[assignment, list-item]
        found = []
        batches = batched(sources, BatchConfig.batch_size)
        for item in self.stream(batches, workers=0, threshold=threshold, tiling=tiling, tta=tta):
            found.append(self.named(item.result()))
        return found if many else found[0]

    def predict_batches(
        self,
        sources: Iterable[S],
        *,
        batch_size: int = BatchConfig.batch_size,
        workers: int = LoadingConfig.workers,
        threshold: float | None = None,
    ) -> Iterator[tuple[S, sv.Detections | ImageError]]:
        """Yield (source, detections) in order, for as many images as there may be: `workers` + 1 batches are held.

        An image that does not decode yields its error, and the rest go on.
        """
        for found in self.stream(batched(sources, batch_size), workers=workers, threshold=threshold):
            outcome = found.error if found.detections is None else self.named(found.detections)
            yield found.source, outcome  # type: ignore[misc]

    def stream(
        self,
        batches: Iterable[Sequence[Source]],
        *,
        workers: int,
        threshold: float | None = None,
        tiling: TileConfig | None = None,
        tta: bool = False,
    ) -> Iterator[ImageResult]:
        """Yield what becomes of each image, in order; `workers` threads decode and resize ahead of the network.

        `tiling` says how images are cut, if not as the model was trained: see `TileConfig`. With `tta` each image
        is looked at flipped and at other sizes too, six times in all.
        """
        if tiling is None or tiling.tile is None:
            tiling = self.tiling
        config = self.postprocess_config
        if threshold is not None:
            config = dataclasses.replace(config, score_threshold=threshold)
        for batch in load_ahead(batches, self._load, workers):
            readable = [source for source, error in zip(batch.sources, batch.errors, strict=True) if error is None]
            detections = zip(batch.frames, self._look(readable, batch, config, tta), strict=True)
            for source, error in zip(batch.sources, batch.errors, strict=True):
                if error is not None:
                    yield ImageResult(source=source, error=error)
                    continue
                frame, found = next(detections)
                try:
                    if tiling.tile:
                        found = self._in_tiles(source, frame, found, tiling, config, len(batch.sources), tta)
                except ImageError as broken:  # beyond what the whole image at a smaller scale needed
                    yield ImageResult(source=source, error=broken)
                    continue
                yield ImageResult(source=source, width=frame.width, height=frame.height, detections=found)

    def _in_tiles(
        self,
        source: Source,
        frame: Frame,
        whole: ArrayDetections,
        tiling: TileConfig,
        config: PostprocessConfig,
        batch_size: int,
        tta: bool,
    ) -> ArrayDetections:
        """Return the detections of an image's tiles merged with those of the whole; `batch_size` tiles at once."""
        places = tiles(frame.width, frame.height, tile=tiling.tile or 0, overlap=tiling.overlap)
        if len(places) == 1:
            return whole
        parts: list[ArrayDetections] = []
        with open_windows(source) as image:
            for some in batched(places, max(1, batch_size)):
                crops = [image.crop(place) for place in some]
                parts += self._look(crops, self._load(crops), config, tta)
        return merge_tiles(
            whole,
            parts,
            places,
            width=frame.width,
            height=frame.height,
            whole_from=tiling.whole_from,
            config=config,
        )

    def _look(
        self, sources: Sequence[Source], batch: InputBatch, config: PostprocessConfig, tta: bool
    ) -> list[ArrayDetections]:
        """Return the detections of a batch; with `tta` from its images flipped and at `TTA_SCALES` as well."""
        found = self._detect(batch, config)
        if not tta or not found:
            return found
        views = [found, self._flipped(batch, config)]
        for scale in TTA_SCALES:
            image_config = dataclasses.replace(
                self.image_config,
                image_size=round(self.image_config.image_size * scale),
                max_size=round(self.image_config.max_size * scale),
            )
            scaled = self._load(sources, image_config)
            views += [self._detect(scaled, config), self._flipped(scaled, config)]
        return [merge_views(of_one, config=config) for of_one in zip(*views, strict=True)]

    def _flipped(self, batch: InputBatch, config: PostprocessConfig) -> list[ArrayDetections]:
        """Return the detections in the mirrored images, mirrored back."""
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
        """Return the detections for supervision, with the class names as `data["class_name"]`."""
        return sv.Detections(
            xyxy=detections.boxes_D4,
            confidence=detections.scores_D,
            class_id=detections.labels_D,
            data={"class_name": np.array(self.classes, dtype=np.str_)[detections.labels_D]},
        )

    def _load(self, sources: Sequence[Source], config: ImageConfig | None = None) -> InputBatch:
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
