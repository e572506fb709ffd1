"""Explain why there is a detection at a place of an image, or why not: scores and boxes of every feature level.

Boxes are xyxy in original pixels. Shape suffixes: A anchors (all levels, finest first), K classes, C anchors of one
position, D detections, H and W positions.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import supervision as sv

from retinanet.predict.trace import Fate, FlatOutputs, Trace
from retinanet.serve.explained_values import (
    detections,
    level_details,
    level_size,
    predicted,
    rounded,
    rounded_box,
    shown,
)
from retinanet.serve.proposals import distance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinanet.config import PostprocessConfig
    from retinanet.predict.dense import DenseOutputs

Floats = npt.NDArray[np.float32]

MAX_COVERING: Final = 3
"""Maximum number of boxes that cover the place, returned for each level."""
COVERING_CANDIDATES: Final = 300
"""Number of covering boxes with the highest scores among which `MAX_COVERING` are chosen."""
NEAR_SHARE: Final = 0.1
"""A place up to this share of a detection's shorter side outside of it is described as just outside."""
SAME_BOX_IOU: Final = 0.7
"""Two covering boxes with a higher IoU are near-duplicates; only the one with the higher score is returned."""


def explain(
    dense: DenseOutputs,
    *,
    x: float,
    y: float,
    width: int,
    height: int,
    classes: Sequence[str],
    threshold: float | Sequence[float],
    config: PostprocessConfig,
) -> dict[str, Any]:
    """Return the scores and boxes of every feature level at (x, y), and what happened to each box.

    Args:
        dense: scores and boxes of the image at every position, before thresholds and NMS.
        x: pixels from the left of the original image.
        y: pixels from the top of the original image.
        width: width of the original image, pixels.
        height: height of the original image, pixels.
        classes: name of each class id.
        threshold: score threshold, or a threshold for each class; a detection has a higher score.
        config: post-processing of the model. `threshold` replaces its `score_threshold`.

    Returns:
        values that JSON can hold, as described by `ExplainResponse` in `schemas.py`.
    """
    flat, K = FlatOutputs.of(dense), len(classes)
    threshold_K = np.broadcast_to(np.array(threshold, np.float32), K)
    lowest = float(np.min(threshold))
    trace = Trace(flat, dataclasses.replace(config, score_threshold=lowest))
    kept_D = shown(trace, threshold_K)

    def proposal(anchor: int, label: int) -> dict[str, Any]:
        return {
            **predicted(flat, anchor, label, classes),
            "anchor": rounded_box(flat.anchors_A4[anchor]),
            **_fate(trace, anchor, label, kept_D, threshold=float(threshold_K[label])),
        }

    levels = []
    covers_A = _inside(flat.boxes_A4, x, y)
    for (level, row, column), start, end, detail in zip(
        dense.at(x, y), flat.starts, flat.starts[1:], level_details(dense), strict=False
    ):
        at_CK = level.scores_HWCK[row, column]
        first = start + (row * level.scores_HWCK.shape[1] + column) * len(at_CK)
        anchor, label = np.unravel_index(int(at_CK.argmax()), at_CK.shape)
        levels.append(
            {
                "level": f"P{level.level}",
                "detail": detail,
                "size": round(level_size(level), 1),
                "stride": level.stride,
                "position": _center(level.anchors_HWC4[row, column, 0]),
                "scores": [rounded(score) for score in at_CK.max(axis=0)],
                "best": proposal(first + int(anchor), int(label)),
                "covering": [proposal(a, k) for a, k in _covering(flat, start + np.flatnonzero(covers_A[start:end]))],
            }
        )
    found = detections(trace, kept_D, classes)
    near = _nearest(flat.boxes_A4[trace.anchor_D[kept_D]], x, y)
    return {
        "x": x,
        "y": y,
        "width": width,
        "height": height,
        "threshold": lowest,
        "summary": _summary(levels, found, near, x, y),
        "near": near,
        "levels": levels,
        "detections": found,
    }


def _nearest(boxes_D4: Floats, x: float, y: float) -> dict[str, Any] | None:
    """Return the detection nearest to a place, and its distance; None if a detection covers the place."""
    distances = [distance(box_4, x, y) for box_4 in boxes_D4]
    if not distances or min(distances) == 0:
        return None
    d = int(np.argmin(distances))
    return {"detection": d, "distance": round(distances[d], 2)}


def _fate(trace: Trace, anchor: int, label: int, kept_D: npt.NDArray[np.int64], *, threshold: float) -> dict[str, Any]:
    """Return what happened to the box of an anchor: its fate, the reason in words, and the detection involved.

    The field `detection` is the index of the detection that the box became or that suppressed the box. The field `iou`
    is set for a suppressed box only.

    Args:
        trace: post-processing of the image.
        anchor: index of the anchor.
        label: class id of the box.
        kept_D: number of each detection among the boxes that NMS keeps.
        threshold: score threshold of the class.
    """
    score, config = float(trace.flat.scores_AK[anchor, label]), trace.config
    fate = trace.fate(anchor, label) if score > threshold else Fate("below_threshold")
    number = None if fate.kept is None else next(iter(np.flatnonzero(kept_D == fate.kept).tolist()), None)
    overlap = None if fate.iou is None else round(fate.iou, 4)
    other = f"detection {number + 1}" if number is not None else "a box that is not shown"
    why = {
        "detected": f"this box is {other}",
        "below_threshold": f"score {score:.3f} is not above the threshold {round(threshold, 6):g}",
        "not_a_candidate": f"{config.candidates_per_level} boxes of this level have higher scores, the limit of "
        "candidates",
        "beyond_max_detections": f"{config.max_detections} detections have higher scores, the limit per image",
        "suppressed": f"suppressed by {other}, which overlaps this box (IoU {overlap or 0:.2f}) and has a higher score",
    }[fate.name]
    return {"fate": fate.name, "why": why, "detection": number, "iou": overlap}


def _covering(flat: FlatOutputs, covering: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return (anchor, class id) of up to `MAX_COVERING` boxes with the highest scores, without near-duplicates.

    Neighbouring positions predict nearly the same box for one object.
    """
    label = flat.scores_AK[covering].argmax(axis=1)
    order = (-flat.scores_AK[covering, label]).argsort(kind="stable")
    chosen: list[int] = []
    for i in order[:COVERING_CANDIDATES].tolist():
        if not (_iou(flat.boxes_A4[covering[i]], flat.boxes_A4[covering[chosen]]) > SAME_BOX_IOU).any():
            chosen.append(i)
        if len(chosen) == MAX_COVERING:
            break
    return [(int(covering[i]), int(label[i])) for i in chosen]


def _inside(boxes_A4: Floats, x: float, y: float) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = (
        (boxes_A4[:, 0] <= x) & (x <= boxes_A4[:, 2]) & (boxes_A4[:, 1] <= y) & (y <= boxes_A4[:, 3])
    )
    return inside


def _iou(box_4: Floats, boxes_A4: Floats) -> Floats:
    """Return the IoU of one box with each box of `boxes_A4`, (A,)."""
    iou_A: Floats = sv.box_iou_batch(box_4[None], boxes_A4)[0]
    return iou_A


def _summary(
    levels: list[dict[str, Any]], found: list[dict[str, Any]], near: dict[str, Any] | None, x: float, y: float
) -> str:
    """Return one or two sentences: why there is a detection at (x, y), or why there is none."""
    covering = [
        (number, d)
        for number, d in enumerate(found, 1)
        if d["box"][0] <= x <= d["box"][2] and d["box"][1] <= y <= d["box"][3]
    ]
    if covering:
        number, best = covering[0]
        more = f", and {len(covering) - 1} more" if len(covering) > 1 else ""
        return f"Detected here: detection {number}, {best['class']}, score {best['score']:.2f}{more}."
    level, best = max(
        ((level["level"], p) for level in levels for p in (level["best"], *level["covering"])),
        key=lambda pair: pair[1]["score"],
    )
    summary = f"No detection here. The box with the highest score is from {level}: {best['class']}, {best['why']}."
    if near is None or not is_near(found[near["detection"]]["box"], near["distance"]):
        return summary
    other = found[near["detection"]]
    return (
        f"This place is {near['distance']:.0f} pixels outside of detection {near['detection'] + 1}, {other['class']}. "
        f"{summary}"
    )


def is_near(box: Sequence[float], pixels: float) -> bool:
    """Return whether a place at this distance from a box is within a tenth of the box's shorter side."""
    x1, y1, x2, y2 = box
    return pixels <= NEAR_SHARE * min(x2 - x1, y2 - y1)


def _center(box_4: Floats) -> list[float]:
    return [round(float(value), 2) for value in (box_4[:2] + box_4[2:]) / 2]
