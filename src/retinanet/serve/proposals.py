"""Propose the object that a user means by a place of an image, or the class of a box.

Boxes are xyxy in original pixels. Shape suffixes: A anchors (all levels, finest first), K classes, D detections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from retinanet.evaluate.per_image import MATCH_IOU, overlaps

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.predict.dense import DenseOutputs
    from retinanet.predict.trace import FlatOutputs
    from retinanet.types import ArrayDetections

    Floats = npt.NDArray[np.floating]

LOWEST_SCORE: Final = 0.01
"""A predicted box is proposed only if the product of its score and its centredness reaches this value."""

MAX_OTHERS: Final = 3
"""Maximum number of other objects that a place suggests."""
OTHER_IOU: Final = 0.6
"""Boxes with a higher IoU suggest the same object."""
CANDIDATES: Final = 300
"""Number of boxes with the highest ranks among which other objects are searched."""

Source = Literal["detection", "prediction", "anchor"]
"""Where a proposed box comes from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProposedObject:
    """A box and a class that a place of an image suggests."""

    box: tuple[float, float, float, float]
    label: int
    score: float
    source: Source


def propose_object(
    flat: FlatOutputs, found: ArrayDetections, dense: DenseOutputs, marked_G4: Floats, *, x: float, y: float
) -> ProposedObject:
    """Return the object that a place of an image suggests.

    A place inside a detection suggests the smallest such detection. Otherwise, it suggests the predicted box around the
    place with the highest product of score and centredness (FCOS, arXiv 1904.01355, equation 3: 1 in the middle of a
    box, 0 at its border), among the boxes that overlap no detection and no marked object with an IoU of 0.5 or more.
    Without such a box, it suggests the anchor with the highest score at the place.

    Args:
        flat: dense outputs of the image.
        found: detections that are shown.
        dense: the same outputs by level.
        marked_G4: boxes of objects that are already marked.
        x: pixels from the left of the image.
        y: pixels from the top of the image.
    """
    inside = np.flatnonzero(centredness(found.boxes_D4, x, y) > 0)
    if len(inside):
        sides_D2 = found.boxes_D4[inside, 2:] - found.boxes_D4[inside, :2]
        d = int(inside[sides_D2.prod(axis=1).argmin()])
        return _object(found.boxes_D4[d], int(found.labels_D[d]), found.scores_D[d], "detection")
    rank_A = centredness(flat.boxes_A4, x, y) * flat.scores_AK.max(axis=1)
    near = np.flatnonzero(rank_A >= LOWEST_SCORE)
    others_D4 = np.concatenate([found.boxes_D4, marked_G4])
    near = near[(overlaps(flat.boxes_A4[near], others_D4)[0] < MATCH_IOU).all(axis=1)]
    if len(near):
        a = int(near[rank_A[near].argmax()])
        return _from_prediction(flat, a)
    return _from_anchor(dense, x, y)


def propose_others(
    flat: FlatOutputs, found: ArrayDetections, first: ProposedObject, marked_G4: Floats, *, x: float, y: float
) -> list[ProposedObject]:
    """Return up to `MAX_OTHERS` other objects around a place, the highest product of score and centredness first.

    Args:
        flat: dense outputs of the image.
        found: detections that are shown.
        first: the object that `propose_object` returns.
        marked_G4: boxes of objects that are already marked.
        x: pixels from the left of the image.
        y: pixels from the top of the image.
    """
    rank_D = centredness(found.boxes_D4, x, y) * found.scores_D
    rank_A = centredness(flat.boxes_A4, x, y) * flat.scores_AK.max(axis=1)
    rows = [
        (float(rank_D[d]), _object(found.boxes_D4[d], int(found.labels_D[d]), found.scores_D[d], "detection"))
        for d in np.flatnonzero(rank_D > 0)
    ]
    near = np.flatnonzero(rank_A >= LOWEST_SCORE)
    near = near[(-rank_A[near]).argsort(kind="stable")[:CANDIDATES]]
    near = near[(overlaps(flat.boxes_A4[near], found.boxes_D4)[0] <= OTHER_IOU).all(axis=1)]
    rows += [(float(rank_A[a]), _from_prediction(flat, a)) for a in near.tolist()]
    chosen, boxes = [], [*marked_G4.tolist(), list(first.box)]
    for _, one in sorted(rows, key=lambda row: -row[0]):
        if (overlaps(np.array([one.box]), np.array(boxes))[0] <= OTHER_IOU).all():
            chosen.append(one)
            boxes.append(list(one.box))
        if len(chosen) == MAX_OTHERS:
            break
    return chosen


def propose_label(flat: FlatOutputs, iou_A: Floats) -> int:
    """Return the class with the highest score among the predicted boxes that fit a box.

    Args:
        flat: dense outputs of the image.
        iou_A: IoU of each predicted box with the box. If none reaches 0.5, the box with the highest IoU decides.
    """
    fits = np.flatnonzero(iou_A >= min(MATCH_IOU, float(iou_A.max())))
    return int(flat.scores_AK[fits].max(axis=0).argmax())


def centredness(boxes_A4: Floats, x: float, y: float) -> npt.NDArray[np.float64]:
    """Return how central a place is in each box: 1 in its middle, 0 at its border and outside of it, (A,)."""
    boxes_A4 = np.asarray(boxes_A4, np.float64)
    to_left_top_A2, to_right_bottom_A2 = np.array([x, y]) - boxes_A4[:, :2], boxes_A4[:, 2:] - np.array([x, y])
    least_A2, most_A2 = np.minimum(to_left_top_A2, to_right_bottom_A2), np.maximum(to_left_top_A2, to_right_bottom_A2)
    ratio_A2 = least_A2.clip(min=0) / np.where(most_A2 > 0, most_A2, 1)
    central_A: npt.NDArray[np.float64] = np.sqrt(ratio_A2.prod(axis=1))
    return central_A


def distance(box_4: Floats, x: float, y: float) -> float:
    """Return the distance of a place from a box, 0 inside of it, pixels."""
    x1, y1, x2, y2 = box_4.tolist()
    return float(np.hypot(max(x1 - x, 0, x - x2), max(y1 - y, 0, y - y2)))


def _from_anchor(dense: DenseOutputs, x: float, y: float) -> ProposedObject:
    """Return the anchor with the highest score at the positions nearest to a place, clipped to the image."""
    level, row, column = max(dense.at(x, y), key=lambda at: float(at[0].scores_HWCK[at[1], at[2]].max()))
    anchor, label = np.unravel_index(int(level.scores_HWCK[row, column].argmax()), level.scores_HWCK.shape[2:])
    limit = np.array([dense.frame.width, dense.frame.height] * 2)
    box_4, score = level.anchors_HWC4[row, column, anchor], level.scores_HWCK[row, column, anchor, label]
    return _object(np.clip(box_4, 0, limit), int(label), score, "anchor")


def _from_prediction(flat: FlatOutputs, anchor: int) -> ProposedObject:
    label = int(flat.scores_AK[anchor].argmax())
    return _object(flat.boxes_A4[anchor], label, flat.scores_AK[anchor, label], "prediction")


def _object(box_4: Floats, label: int, score: np.floating[Any], source: Source) -> ProposedObject:
    x1, y1, x2, y2 = (round(value, 2) for value in box_4.astype(np.float64).tolist())
    return ProposedObject(box=(x1, y1, x2, y2), label=label, score=round(float(score), 6), source=source)
