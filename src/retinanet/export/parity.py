"""Does an exported model say what the original says? Run both on the same images, and compare.

Boxes are xyxy in original pixels. Shape suffixes: N batch, A anchors, K classes, B, D detections of an image.
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from retinanet.config import ImageConfig, PostprocessConfig
    from retinanet.images import Scaled
    from retinanet.predict.detector import BaseDetector
    from retinanet.types import ArrayDetections

    Dense = Callable[[ImageConfig, Sequence[Scaled]], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]

BOX_TOLERANCE: Final = 0.01
"""Pixels by which a corner may differ."""
SCORE_TOLERANCE: Final = 1e-4
"""Amount by which a score may differ."""
IOU_TOLERANCE: Final = 1e-3
"""Distance from the threshold of non-maximum suppression within which either decision is right: what 0.01 pixels make
of a box of 20."""
MOST_DOUBTFUL: Final = 0.02
"""Share of the detections that may differ for such a reason: more is no accident."""
BATCH_SIZES: Final = (1, 3)
SCALES: Final = (1.0, 0.75)
"""Of the sizes that the model was trained with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How far two models are apart on some images.

    Args:
        image_size: shorter side of the resized images.
        batch_size: images at once.
        images: how many.
        compared: detections, or anchors, that were compared.
        boxes: largest difference of a corner, pixels.
        scores: largest difference of a score.
        missing: detections that one has and the other has not.
        doubtful: those that are missing because their score or overlap lies at a threshold; not among the missing.
    """

    image_size: int
    batch_size: int
    images: int
    compared: int
    boxes: float
    scores: float
    missing: int = 0
    doubtful: int = 0

    @property
    def agrees(self) -> bool:
        """Whether all is within the tolerances."""
        few = self.doubtful <= max(1.0, MOST_DOUBTFUL * self.compared)
        return self.missing == 0 and few and self.boxes <= BOX_TOLERANCE and self.scores <= SCORE_TOLERANCE


def compare(
    original: BaseDetector,
    exported: BaseDetector,
    images: Sequence[Path],
    *,
    scales: Sequence[float] = SCALES,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> list[Difference]:
    """Return the differences of the detections, for each size and batch size."""
    out = []
    for scale, batch_size in product(scales, batch_sizes):
        image_config = scaled(original.image_config, scale)
        with image_config_of(image_config, original, exported):
            found = [_found(detector, images, batch_size) for detector in (original, exported)]
        rows = [differ(a, b, original.postprocess_config) for a, b in zip(*found, strict=True)]
        out.append(
            Difference(
                image_size=image_config.image_size,
                batch_size=batch_size,
                images=len(images),
                compared=sum(row.compared for row in rows),
                boxes=max(row.boxes for row in rows),
                scores=max(row.scores for row in rows),
                missing=sum(row.missing for row in rows),
                doubtful=sum(row.doubtful for row in rows),
            )
        )
    return out


@contextmanager
def image_config_of(config: ImageConfig, *detectors: BaseDetector) -> Iterator[None]:
    """Let the detectors prepare images by another config within a `with` block."""
    before = [detector.info for detector in detectors]
    try:
        for detector, info in zip(detectors, before, strict=True):
            detector.info = dataclasses.replace(info, image_config=config)
        yield
    finally:
        for detector, info in zip(detectors, before, strict=True):
            detector.info = info


def _found(detector: BaseDetector, images: Sequence[Path], batch_size: int) -> list[ArrayDetections]:
    stream = detector.stream(batched(images, batch_size), workers=0, tiling=TileConfig(tile=0))
    return [found.result() for found in stream]


def scaled(config: ImageConfig, scale: float) -> ImageConfig:
    """Return the config with other sizes."""
    image_size, max_size = (max(1, round(side * scale)) for side in (config.image_size, config.max_size))
    return dataclasses.replace(config, image_size=image_size, max_size=max_size)


def differ(first: ArrayDetections, second: ArrayDetections, config: PostprocessConfig) -> Difference:
    """Return how far the detections of one image are apart. `image_size` and `batch_size` are 0."""
    pairs = _pairs(first, second)
    rows, columns = (np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1))
    boxes = np.abs(first.boxes_D4[rows] - second.boxes_D4[columns]).max(initial=0.0)
    scores = np.abs(first.scores_D[rows] - second.scores_D[columns]).max(initial=0.0)
    left = [
        (detections, other, np.setdiff1d(np.arange(len(detections)), taken))
        for detections, other, taken in ((first, second, rows), (second, first, columns))
    ]
    doubtful = missing = 0
    for mine, other, alone in left:
        for i in alone:
            at_edge = _at_edge(mine, int(i), other, config, [(m.boxes_D4[a], m.labels_D[a]) for m, _, a in left])
            doubtful, missing = doubtful + at_edge, missing + (not at_edge)
    return Difference(
        image_size=0,
        batch_size=0,
        images=1,
        compared=len(pairs),
        boxes=float(boxes),
        scores=float(scores),
        missing=missing,
        doubtful=doubtful,
    )


def _pairs(first: ArrayDetections, second: ArrayDetections) -> list[tuple[int, int]]:
    """Return which detections of the two are the same: of a class, and nearest, if near at all."""
    apart = np.abs(first.boxes_D4[:, None] - second.boxes_D4[None]).max(axis=2)
    apart_scores = np.abs(first.scores_D[:, None] - second.scores_D[None])
    # Near: a tenth of the box, and a tenth of a score. What is further apart is another detection.
    sides = (first.boxes_D4[:, 2:] - first.boxes_D4[:, :2]).max(axis=1, initial=0)
    near = (apart <= np.maximum(1.0, 0.1 * sides)[:, None]) & (apart_scores <= 0.1)
    near &= first.labels_D[:, None] == second.labels_D[None]
    cost = apart / BOX_TOLERANCE + apart_scores / SCORE_TOLERANCE
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


def _at_edge(
    mine: ArrayDetections,
    i: int,
    other: ArrayDetections,
    config: PostprocessConfig,
    alone: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]],
) -> bool:
    """Return whether a detection that the other has not lies so near a threshold that either decision is right."""
    score = mine.scores_D[i]
    if score <= config.score_threshold + SCORE_TOLERANCE:
        return True
    if len(other) >= config.max_detections and score <= other.scores_D.min(initial=1.0) + SCORE_TOLERANCE:
        return True
    better = mine[(mine.labels_D == mine.labels_D[i]) & (mine.scores_D >= score - SCORE_TOLERANCE)]
    same = other[(other.labels_D == mine.labels_D[i]) & (other.scores_D >= score - SCORE_TOLERANCE)]
    box = mine.boxes_D4[i : i + 1]
    boxes = np.concatenate([better.boxes_D4, same.boxes_D4])
    if (np.abs(sv.box_iou_batch(box, boxes) - config.nms_threshold) <= IOU_TOLERANCE).any():
        return True
    # One that the other's model kept for such a reason may have suppressed this one.
    rivals = np.concatenate([b[labels == mine.labels_D[i]] for b, labels in alone])
    rivals = rivals[(rivals != box).any(axis=1)]
    return bool((sv.box_iou_batch(box, rivals) > config.nms_threshold - IOU_TOLERANCE).any()) if len(rivals) else False


def compare_dense(
    original: Dense,
    exported: Dense,
    images: Sequence[Path],
    config: ImageConfig,
    *,
    score_threshold: float,
    scales: Sequence[float] = SCALES,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> list[Difference]:
    """Return the differences before top-k and suppression: of all scores, and of the boxes of all anchors that count.

    Args:
        original: resized images to scores_NAK and boxes_NA4, clipped.
        exported: likewise.
        images: files.
        config: how images become input.
        score_threshold: a box counts if its best class scores more; the best thousand where there are fewer.
        scales: of the image's sizes.
        batch_sizes: images at once.
    """
    out = []
    for scale, batch_size in product(scales, batch_sizes):
        sized = scaled(config, scale)
        boxes = scores = 0.0
        compared = 0
        for batch in batched(images, batch_size):
            decoded = [decode_for(p, image_size=sized.image_size, max_size=sized.max_size) for p in batch]
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
