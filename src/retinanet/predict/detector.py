"""The base class of detectors. The torch detector and the torch-free runtime detector share this code.

Needs numpy, Pillow and supervision, never torch. Boxes are xyxy in original pixels, after EXIF rotation.
Shape suffixes: N batch, H, W, D detections of an image; 3 is RGB.
"""

from __future__ import annotations

import dataclasses
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar, overload

import numpy as np
import numpy.typing as npt
import supervision as sv
from PIL import Image

from retinanet.config import (
    BatchConfig,
    ImageConfig,
    LoadingConfig,
    PostprocessConfig,
    TileConfig,
    separate_names,
)
from retinanet.errors import ConfigError, did_you_mean, list_names
from retinanet.images import Frame, ImageError, Scaled, decode_for, group_equal, open_windows, prepare, tiles
from retinanet.pixel_values import FULL_DEPTH, recognise_depth
from retinanet.predict.batches import ImageResult, InputBatch, Pixels, Source, batched, load_ahead
from retinanet.predict.merge import merge_tiles, merge_views
from retinanet.predict.sources import is_list_of_images, to_source
from retinanet.types import ArrayDetections

if TYPE_CHECKING:
    from retinanet.checkpoint.model_info import ModelInfo
    from retinanet.predict.dense import DenseOutputs

TTA_SCALES: Final = (0.8, 1.25)
"""Factors of the image size at which test-time augmentation detects, in addition to 1."""

log = logging.getLogger(__name__)
S = TypeVar("S", bound=Source)
Threshold = float | Literal["tuned"] | None


class BaseDetector(ABC):
    """A trained network with preprocessing and post-processing: from images to detections. A subclass runs the network.

    Args:
        info: classes, preprocessing, post-processing and tiling of the model.
        images_per_call: largest number of images that one call of the network processes; None: no limit. Subclasses
            set 1 on the CPU, where libraries choose the order of additions by the number of images, and where several
            images save no time.
    """

    device: object = "cpu"
    """Device that runs the network. Its text names the device: cpu, cuda:0, CPUExecutionProvider, ..."""
    fixed_agnostic_nms: bool | None = None
    """The setting of `agnostic_nms` inside an exported graph; None: each call chooses."""

    def __init__(self, info: ModelInfo, *, images_per_call: int | None = None) -> None:
        self.info = info
        self.images_per_call = images_per_call
        self._warned: set[str] = set()

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

    def check_threshold(self, threshold: Threshold) -> None:
        """Raise `ConfigError` if the threshold is "tuned" and the model has no tuned thresholds."""
        if threshold == "tuned" and self.info.tuned is None:
            raise ConfigError(
                "threshold tuned: expected a model with tuned thresholds, found none: choose thresholds with "
                "`retinanet tune`, export the tuned checkpoint, or give a number"
            )

    def labels_of(self, classes: Sequence[str]) -> list[int] | None:
        """Return the class ids of class names; None without names, which stands for all classes.

        Args:
            classes: class names. A text that is no class name is split at its commas.

        Raises:
            ConfigError: the model has no class of this name.
        """
        texts = [classes] if isinstance(classes, str) else classes
        names = [name for text in texts for name in ([text] if text in self.classes else separate_names([text]))]
        for name in names:
            if name not in self.classes:
                raise ConfigError(
                    f"classes names {name!r}, which the model does not detect. Its classes are "
                    f"{list_names(self.classes)}{did_you_mean(name, self.classes)}"
                )
        return [self.classes.index(name) for name in names] or None

    @property
    def tiling(self) -> TileConfig:
        """Tiling of large images, unless a call overrides it."""
        return self.info.tiling

    @abstractmethod
    def _infer(self, images_N3HW: Pixels, frames: Sequence[Frame], config: PostprocessConfig) -> list[ArrayDetections]:
        """Return the detections of each image of a network input, best first, original pixels."""

    def check_nms(self, config: PostprocessConfig) -> None:
        """Raise `ConfigError` if `agnostic_nms` is not the setting of the exported graph."""
        if self.fixed_agnostic_nms not in {None, config.agnostic_nms}:
            own, other = "NMS per class", "class-agnostic NMS (agnostic_nms)"
            flag = "--agnostic-nms" if config.agnostic_nms else "--no-agnostic-nms"
            raise ConfigError(
                f"the exported model contains {other if self.fixed_agnostic_nms else own}, found a request for "
                f"{other if config.agnostic_nms else own}: leave out the request, or export the checkpoint again with "
                f"{flag}"
            )

    def _detect(self, batch: InputBatch, config: PostprocessConfig) -> list[ArrayDetections]:
        """Return the detections of each decoded image, best first, original pixels.

        The detections of an image must not depend on the other images. So one call of the network processes images of
        equal padded shape only, and at most `images_per_call` images.
        """
        found: dict[int, ArrayDetections] = {}
        for group in group_equal([image.shape for image in batch.images], most=self.images_per_call):
            first = batch.images[group[0]]
            images_N3HW: Pixels = first[None] if len(group) == 1 else np.stack([batch.images[i] for i in group])  # type: ignore[assignment]
            found |= zip(group, self._infer(images_N3HW, [batch.frames[i] for i in group], config), strict=True)
        return [found[i] for i in range(len(batch.images))]

    def _prepare(self, image: Image.Image | Scaled, config: ImageConfig) -> tuple[Pixels, Frame]:
        """Return the network input 3HW of an image, and its frame."""
        images_N3HW, frames = prepare([image], config)
        return images_N3HW[0], frames[0]

    def detect(
        self, images: Sequence[Scaled | Image.Image], *, config: PostprocessConfig | None = None
    ) -> list[ArrayDetections]:
        """Return the detections of decoded images, without tiling. They do not depend on the other images.

        Args:
            images: results of `images.decode_for` with the sizes of `image_config`, or upright RGB Pillow images.
            config: thresholds; None: those of the model.
        """
        if not images:
            return []
        batch = InputBatch(sources=[], errors=[], images=[], frames=[], decodable=[])
        for image in images:
            self._warn(image, "image")
            pixels_3HW, frame = self._prepare(image, self.image_config)
            batch.images.append(pixels_3HW)
            batch.frames.append(frame)
        return self._detect(batch, config or self.postprocess_config)

    @abstractmethod
    def dense(self, source: Source | Scaled) -> DenseOutputs:
        """Return the predictions at every position of every feature level for one image.

        They show why an object is detected or missed.

        Raises:
            ImageError: the image cannot be decoded.
        """

    def assigned_objects(
        self, dense: DenseOutputs, boxes_G4: npt.NDArray[np.floating], labels_G: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64] | None:
        """Return the index of the object that training makes each anchor positive for, or -1: (A,).

        Args:
            dense: predictions for the image.
            boxes_G4: ground-truth boxes.
            labels_G: class ids of the ground-truth boxes.

        Returns:
            None for an exported model, which does not contain the assigner.
        """
        return None

    @overload
    def predict(  # type: ignore[overload-overlap]
        self,
        source: Source,
        *,
        threshold: Threshold = None,
        tile: int | None = None,
        overlap: float = TileConfig.overlap,
        tta: bool = False,
        agnostic_nms: bool | None = None,
        classes: Sequence[str] = (),
    ) -> sv.Detections: ...
    @overload
    def predict(
        self,
        source: Iterable[Source],
        *,
        threshold: Threshold = None,
        tile: int | None = None,
        overlap: float = TileConfig.overlap,
        tta: bool = False,
        agnostic_nms: bool | None = None,
        classes: Sequence[str] = (),
    ) -> list[sv.Detections]: ...
    def predict(
        self,
        source: Source | Iterable[Source],
        *,
        threshold: Threshold = None,
        tile: int | None = None,
        overlap: float = TileConfig.overlap,
        tta: bool = False,
        agnostic_nms: bool | None = None,
        classes: Sequence[str] = (),
    ) -> sv.Detections | list[sv.Detections]:
        """Return the detections of one image, or of each image of a list; best first.

        Args:
            source: path, bytes of an image file, open file, Pillow image, array or tensor (H, W, 3) in RGB, see
                `sources.to_source`; or a list, an iterator or an array (N, H, W, 3) of images.
            threshold: lowest score of a detection, or "tuned": the thresholds of `retinanet tune`; None: the model's
                `score_threshold` (0.05 unless changed).
            tile: side of the tiles into which large images are cut, original pixels; 0: no tiles; None: as in training.
            overlap: share of a tile that overlaps its neighbour.
            tta: test-time augmentation: also detect in flipped and rescaled images. It improves boxes at six times the
                cost.
            agnostic_nms: whether a box suppresses overlapping boxes of every class; None: as the model.
            classes: names of the classes to keep; detections of other classes are left out. Default: all classes.

        Raises:
            ImageError: an image cannot be decoded, or a source is no image.
            ConfigError: the model has no class of a name in `classes`.
        """
        tiling = TileConfig(tile=tile, overlap=overlap)
        is_list = is_list_of_images(source)
        sources: Iterable[Source] = source if is_list else [source]  # type: ignore[assignment, list-item]
        batches = batched(sources, BatchConfig.batch_size)
        results = self.stream(
            batches, workers=0, threshold=threshold, tiling=tiling, tta=tta, agnostic_nms=agnostic_nms, classes=classes
        )
        detections = [self.named(result.result()) for result in results]
        return detections if is_list else detections[0]

    def predict_batches(
        self,
        sources: Iterable[S],
        *,
        batch_size: int = BatchConfig.batch_size,
        workers: int = LoadingConfig.workers,
        threshold: Threshold = None,
        agnostic_nms: bool | None = None,
        classes: Sequence[str] = (),
    ) -> Iterator[tuple[S, sv.Detections | ImageError]]:
        """Yield (source, detections) of each image in order. An image that cannot be decoded yields (source, error).

        The number of images is not limited: memory holds at most `workers` + 1 batches.

        Args:
            sources: list, iterator or array of images, as in `predict`.
            batch_size: number of images per batch.
            workers: number of threads that decode images.
            threshold: lowest score of a detection, or "tuned": the thresholds of `retinanet tune`; None: the model's
                `score_threshold`.
            agnostic_nms: whether a box suppresses overlapping boxes of every class; None: as the model.
            classes: names of the classes to keep; detections of other classes are left out. Default: all classes.

        Raises:
            ImageError: `sources` is a single image.
        """
        if not is_list_of_images(sources) and not isinstance(sources, Set):
            raise ImageError(f"sources: expected a list or an iterator of images, found a {type(sources).__name__}")
        batches = batched(sources, batch_size)
        results = self.stream(batches, workers=workers, threshold=threshold, agnostic_nms=agnostic_nms, classes=classes)
        for result in results:
            outcome = result.error if result.detections is None else self.named(result.detections)
            yield result.source, outcome  # type: ignore[misc]

    def stream(
        self,
        batches: Iterable[Sequence[Source]],
        *,
        workers: int,
        threshold: Threshold = None,
        tiling: TileConfig | None = None,
        tta: bool = False,
        min_limit: int = 0,
        agnostic_nms: bool | None = None,
        classes: Sequence[str] = (),
    ) -> Iterator[ImageResult]:
        """Yield the result of each image, in order.

        Args:
            batches: batches of images.
            workers: number of threads that decode and resize images ahead of the network; 0: none.
            threshold: lowest score of a detection, or "tuned": the thresholds of `retinanet tune`; None: the model's
                `score_threshold`.
            tiling: tiling of large images; None: as in training.
            tta: test-time augmentation: detect in six views of each image, flipped and rescaled.
            min_limit: a lower `max_detections` of the model is raised to this number of detections per image.
            agnostic_nms: whether a box suppresses overlapping boxes of every class; None: as the model.
            classes: names of the classes to keep; detections of other classes are left out. Default: all classes.

        Raises:
            ConfigError: the exported model contains another NMS than `agnostic_nms`, no tuned thresholds exist, or the
                model has no class of a name in `classes`.
        """
        if tiling is None or tiling.tile is None:
            tiling = self.tiling
        config = self.info.with_agnostic_nms(agnostic_nms).postprocess_config
        self.check_nms(config)
        self.check_threshold(threshold)
        kept_labels = self.labels_of(classes)
        class_thresholds = None
        if threshold == "tuned" and self.info.tuned is not None:
            # NMS keeps boxes from the highest score down, so that boxes below the threshold of their class never change
            # which boxes above it are kept.
            class_thresholds = self.info.tuned.thresholds
            threshold = min(class_thresholds)
        if threshold is not None:
            config = dataclasses.replace(config, score_threshold=float(threshold))
        config = dataclasses.replace(config, max_detections=max(config.max_detections, min_limit))
        for batch in load_ahead(batches, self._load, workers):
            views = self._detect_views(batch, config, tta)
            detections = zip(batch.decodable, batch.frames, views, strict=True)
            for source, error in zip(batch.sources, batch.errors, strict=True):
                if error is not None:
                    yield ImageResult(source=source, error=error)
                    continue
                decodable, frame, found = next(detections)
                try:
                    if tiling.tile:
                        found = self._detect_in_tiles(decodable, frame, found, tiling, config, len(batch.sources), tta)
                except ImageError as decode_error:
                    # Tiles decode parts of the file that the reduced whole image did not need.
                    yield ImageResult(source=source, error=decode_error)
                    continue
                if class_thresholds is not None:
                    found = above(found, class_thresholds)
                if kept_labels is not None:
                    found = found[np.isin(found.labels_D, kept_labels)]
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
        with open_windows(source, bit_depth=self.image_config.bit_depth) as image:
            for batch_places in batched(places, max(1, batch_size)):
                crops = [image.crop(place) for place in batch_places]
                parts += self._detect_views(self._load(crops), config, tta)
        return merge_tiles(
            whole,
            parts,
            places,
            width=frame.width,
            height=frame.height,
            whole_from=tiling.whole_from,
            config=config,
        )

    def _detect_views(self, batch: InputBatch, config: PostprocessConfig, tta: bool) -> list[ArrayDetections]:
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
            scaled = self._load(batch.decodable, image_config)
            views += [self._detect(scaled, config), self._detect_flipped(scaled, config)]
        return [merge_views(image_views, config=config) for image_views in zip(*views, strict=True)]

    def _detect_flipped(self, batch: InputBatch, config: PostprocessConfig) -> list[ArrayDetections]:
        """Return the detections in the horizontally flipped images, flipped back."""
        images: list[Pixels] = []
        for image_3HW, frame in zip(batch.images, batch.frames, strict=True):
            flipped_3HW, w = np.zeros_like(image_3HW), frame.resized_width
            flipped_3HW[:, :, :w] = image_3HW[:, :, :w][:, :, ::-1]
            images.append(flipped_3HW)
        out = []
        flipped = dataclasses.replace(batch, images=images)
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
        batch = InputBatch(sources=sources, errors=[], images=[], frames=[], decodable=[])
        for source in sources:
            try:
                again = to_source(source)
                scaled = self._decode(again, config)
            except ImageError as error:
                batch.errors.append(error)
                continue
            self._warn(scaled, source)
            pixels_3HW, frame = self._prepare(scaled, config)
            batch.errors.append(None)
            batch.images.append(pixels_3HW)
            batch.frames.append(frame)
            batch.decodable.append(again)
        return batch

    def _decode(self, source: Source, config: ImageConfig) -> Scaled:
        """Return an image, decoded and resized. Raises `ImageError`."""
        return decode_for(source, image_size=config.image_size, max_size=config.max_size, bit_depth=config.bit_depth)

    def _warn(self, image: Scaled | Image.Image, source: object) -> None:
        """Warn once of a file with several images, and once each of 16-bit values too dark or bright for the model."""
        if not isinstance(image, Scaled):
            return
        if image.is_first_of_several and "several" not in self._warned:
            self._warned.add("several")
            log.warning(
                "%s: expected one image, found several (pages of a TIFF, or an animation): only the first is used. "
                "Save each as a file of its own, or an animation as a video. Further such files are not reported",
                source if isinstance(source, str | Path) else "an image file",
            )
        if image.largest is None:
            return
        depth, own_depth = self.image_config.bit_depth or FULL_DEPTH, recognise_depth(image.largest)
        kind = "bright" if image.largest >= 2**depth else "dark"
        if own_depth == depth or kind in self._warned or (kind == "dark" and self.image_config.bit_depth):
            return  # a dark image of a sensor with a known number of bits is a dark image
        self._warned.add(kind)
        log.warning(
            "%s: expected values of %d bits, as the model reads 16-bit images, found values up to %s (%d bits). "
            "%s. If the image is of another sensor, give its number of bits: --bit-depth %d. "
            "Further such images are not reported",
            source if isinstance(source, str | Path) else "a 16-bit image",
            depth,
            f"{image.largest:,}",
            own_depth,
            "Larger values become white" if kind == "bright" else "The image is nearly black for the model",
            own_depth,
        )


def above(detections: ArrayDetections, thresholds: Sequence[float]) -> ArrayDetections:
    """Return the detections with a higher score than the threshold of their class."""
    return detections[detections.scores_D > np.array(thresholds, np.float32)[detections.labels_D]]
