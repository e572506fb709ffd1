"""Compare the outputs of an exported model with those of the original model on the same images.

Boxes are xyxy in original pixels. Shape suffixes: N batch, A anchors, K classes, D detections of an image.
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import supervision as sv

from retinanet.config import TileConfig
from retinanet.images import decode_for
from retinanet.predict.batches import batched
from retinanet.types import concatenate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from retinanet.config import ImageConfig, PostprocessConfig
    from retinanet.images import Scaled
    from retinanet.predict.detector import BaseDetector
    from retinanet.types import ArrayDetections

    DenseFunction = Callable[[ImageConfig, Sequence[Scaled]], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]

BOX_TOLERANCE: Final = 0.01
"""Largest allowed difference of a box corner, pixels."""
SCORE_TOLERANCE: Final = 1e-4
"""Largest allowed difference of a score."""
IOU_TOLERANCE: Final = 1e-3
"""Distance of an IoU from the NMS threshold within which keeping and suppressing a box are both correct.

A shift by 0.01 pixels changes the IoU of a 20-pixel box by about this value."""
MAX_DOUBTFUL: Final = 0.02
"""Largest allowed share of detections that only one of the two models has because they lie at a threshold."""
BATCH_SIZES: Final = (1, 3)
"""Batch sizes of the comparison."""
SCALES: Final = (1.0, 0.75)
"""Image sizes of the comparison, as factors of the image size in training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Differences between the outputs of two models on the same images.

    Args:
        image_size: shorter side of the resized images, pixels.
        batch_size: number of images per batch.
        images: number of images.
        compared: number of compared detections, or of compared anchors.
        boxes: largest difference of a box corner, pixels.
        scores: largest difference of a score.
        missing: number of detections that only one model has, without those counted in `at_threshold`.
        at_threshold: number of detections that only one model has because their score or IoU lies at a threshold.
    """

    image_size: int
    batch_size: int
    images: int
    compared: int
    boxes: float
    scores: float
    missing: int = 0
    at_threshold: int = 0

    @property
    def agrees(self) -> bool:
        """Whether all differences are within the tolerances."""
        few = self.at_threshold <= max(1.0, MAX_DOUBTFUL * self.compared)
        return self.missing == 0 and few and self.boxes <= BOX_TOLERANCE and self.scores <= SCORE_TOLERANCE


def compare(
    original: BaseDetector,
    exported: BaseDetector,
    images: Sequence[Path],
    *,
    scales: Sequence[float] = SCALES,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    tuned: bool = False,
) -> list[Difference]:
    """Return the differences between the detections of two detectors, per image size and batch size.

    Args:
        original: detector of the checkpoint.
        exported: detector of the exported file.
        images: image files.
        scales: factors of the image size in training.
        batch_sizes: numbers of images per batch.
        tuned: compare the detections above the tuned thresholds.
    """
    out = []
    thresholds = original.info.tuned.thresholds if tuned and original.info.tuned is not None else None
    for scale, batch_size in product(scales, batch_sizes):
        image_config = scaled(original.image_config, scale)
        with use_image_config(image_config, original, exported):
            found = [_detect_all(detector, images, batch_size, tuned=tuned) for detector in (original, exported)]
            rows = [
                compare_detections(first, second, original.postprocess_config, thresholds)
                for first, second in zip(*found, strict=True)
            ]
        out.append(
            Difference(
                image_size=image_config.image_size,
                batch_size=batch_size,
                images=len(images),
                compared=sum(row.compared for row in rows),
                boxes=max(row.boxes for row in rows),
                scores=max(row.scores for row in rows),
                missing=sum(row.missing for row in rows),
                at_threshold=sum(row.at_threshold for row in rows),
            )
        )
    return out


@contextmanager
def use_image_config(config: ImageConfig, *detectors: BaseDetector) -> Iterator[None]:
    """Make the detectors prepare images by `config` inside a `with` block."""
    before = [detector.info for detector in detectors]
    try:
        for detector, info in zip(detectors, before, strict=True):
            detector.info = dataclasses.replace(info, image_config=config)
        yield
    finally:
        for detector, info in zip(detectors, before, strict=True):
            detector.info = info


def _detect_all(
    detector: BaseDetector, images: Sequence[Path], batch_size: int, *, tuned: bool
) -> list[ArrayDetections]:
    """Return the detections of each image, without tiling. One call processes `batch_size` images of equal shape."""
    before, detector.images_per_call = detector.images_per_call, batch_size
    try:
        stream = detector.stream(
            batched(images, batch_size), workers=0, tiling=TileConfig(tile=0), threshold="tuned" if tuned else None
        )
        return [image_result.result() for image_result in stream]
    finally:
        detector.images_per_call = before


def scaled(config: ImageConfig, scale: float) -> ImageConfig:
    """Return the config with its image sizes multiplied by `scale`."""
    image_size, max_size = (max(1, round(side * scale)) for side in (config.image_size, config.max_size))
    return dataclasses.replace(config, image_size=image_size, max_size=max_size)


def compare_detections(
    first: ArrayDetections,
    second: ArrayDetections,
    config: PostprocessConfig,
    class_thresholds: Sequence[float] | None = None,
) -> Difference:
    """Return the differences between two models' detections in one image. `image_size` and `batch_size` are 0.

    `class_thresholds` replaces `score_threshold` of `config` for each class.
    """
    pairs = _match_detections(first, second)
    rows, columns = (np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1))
    boxes = np.abs(first.boxes_D4[rows] - second.boxes_D4[columns]).max(initial=0.0)
    scores = np.abs(first.scores_D[rows] - second.scores_D[columns]).max(initial=0.0)
    unmatched = [
        (detections, other, np.setdiff1d(np.arange(len(detections)), matched))
        for detections, other, matched in ((first, second, rows), (second, first, columns))
    ]
    rivals = concatenate([detections[indices] for detections, _, indices in unmatched])
    num_at_threshold = missing = 0
    for detections, other, indices in unmatched:
        for i in indices:
            own = config
            if class_thresholds is not None:
                own = dataclasses.replace(config, score_threshold=class_thresholds[detections.labels_D[i]])
            at_threshold = _is_at_threshold(detections, int(i), other, own, rivals)
            num_at_threshold, missing = num_at_threshold + at_threshold, missing + (not at_threshold)
    return Difference(
        image_size=0,
        batch_size=0,
        images=1,
        compared=len(pairs),
        boxes=float(boxes),
        scores=float(scores),
        missing=missing,
        at_threshold=num_at_threshold,
    )


def _match_detections(first: ArrayDetections, second: ArrayDetections) -> list[tuple[int, int]]:
    """Return the index pairs of detections that two models have in common.

    Both detections of a pair have the same class, corners that differ by at most a tenth of the box side (or 1 pixel),
    and scores that differ by at most 0.1. Nearer detections are paired first.
    """
    box_difference = np.abs(first.boxes_D4[:, None] - second.boxes_D4[None]).max(axis=2)
    score_difference = np.abs(first.scores_D[:, None] - second.scores_D[None])
    sides = (first.boxes_D4[:, 2:] - first.boxes_D4[:, :2]).max(axis=1, initial=0)
    near = (box_difference <= np.maximum(1.0, 0.1 * sides)[:, None]) & (score_difference <= 0.1)
    near &= first.labels_D[:, None] == second.labels_D[None]
    cost = box_difference / BOX_TOLERANCE + score_difference / SCORE_TOLERANCE
    out: list[tuple[int, int]] = []
    taken: tuple[set[int], set[int]] = (set(), set())
    rows, columns = np.nonzero(near)
    for k in np.argsort(cost[rows, columns], kind="stable"):
        i, j = int(rows[k]), int(columns[k])
        if i not in taken[0] and j not in taken[1]:
            out.append((i, j))
            taken[0].add(i)
            taken[1].add(j)
    return out


def _is_at_threshold(
    detections: ArrayDetections,
    i: int,
    other: ArrayDetections,
    config: PostprocessConfig,
    rivals: ArrayDetections,
) -> bool:
    """Return whether a detection lies so near a threshold that keeping and dropping it are both correct.

    Args:
        detections: detections of one model.
        i: index of a detection that the other model does not have.
        other: detections of the other model.
        config: thresholds of both models.
        rivals: detections that only the first, or only the second, model has.
    """
    score, label = detections.scores_D[i], detections.labels_D[i]
    if score <= config.score_threshold + SCORE_TOLERANCE:
        return True
    if len(other) >= config.max_detections and score <= other.scores_D.min(initial=1.0) + SCORE_TOLERANCE:
        return True
    box = detections.boxes_D4[i : i + 1]

    def suppressing(some: ArrayDetections) -> ArrayDetections:
        own_class = (some.labels_D == label) | config.agnostic_nms
        return some[own_class & (some.scores_D >= score - SCORE_TOLERANCE)]

    boxes = np.concatenate([suppressing(d).boxes_D4 for d in (detections, other)])
    if (np.abs(sv.box_iou_batch(box, boxes) - config.nms_threshold) <= IOU_TOLERANCE).any():
        return True
    # A detection that only one of the two models kept may have suppressed this one.
    rivals = suppressing(rivals)
    rivals = rivals[(rivals.boxes_D4 != box).any(axis=1) | (rivals.labels_D != label)]  # without the detection itself
    overlaps = len(rivals) and (sv.box_iou_batch(box, rivals.boxes_D4) > config.nms_threshold - IOU_TOLERANCE).any()
    return bool(overlaps)


def compare_dense(
    original: DenseFunction,
    exported: DenseFunction,
    images: Sequence[Path],
    config: ImageConfig,
    *,
    score_threshold: float,
    scales: Sequence[float] = SCALES,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> list[Difference]:
    """Return the differences between dense outputs, per image size and batch size.

    The scores of all anchors are compared. The boxes are compared where the highest class score of the anchor reaches
    `score_threshold`, and for at least the 1,000 best anchors of a batch.

    Args:
        original: function of the original model: resized images -> scores_NAK and boxes_NA4, clipped to the images.
        exported: the same function of the exported model.
        images: image files.
        config: preprocessing of the images.
        score_threshold: lowest score of an anchor whose box is compared.
        scales: factors of the image size in training.
        batch_sizes: numbers of images per batch.
    """
    out = []
    for scale, batch_size in product(scales, batch_sizes):
        sized = scaled(config, scale)
        boxes = scores = 0.0
        compared = 0
        for batch in batched(images, batch_size):
            decoded = [
                decode_for(p, image_size=sized.image_size, max_size=sized.max_size, bit_depth=sized.bit_depth)
                for p in batch
            ]
            (scores_NAK, boxes_NA4), (other_NAK, other_NA4) = original(sized, decoded), exported(sized, decoded)
            scores = max(scores, float(np.abs(scores_NAK - other_NAK).max()))
            best_NA = scores_NAK.max(axis=2)
            low = min(score_threshold, float(np.sort(best_NA.ravel())[-1000:][0]))
            counted = best_NA >= low
            boxes = max(boxes, float(np.abs(boxes_NA4 - other_NA4)[counted].max()))
            compared += int(counted.sum())
        out.append(
            Difference(
                image_size=sized.image_size,
                batch_size=batch_size,
                images=len(images),
                compared=compared,
                boxes=boxes,
                scores=scores,
            )
        )
    return out
