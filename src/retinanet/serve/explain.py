"""Explain why there is a detection at a place of an image, or why not: scores and boxes of every feature level.

Boxes are xyxy in original pixels. Shape suffixes: A anchors (all levels, finest first), K classes, C candidates or the
anchors of one position, D detections, H and W positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import supervision as sv

from retinanet.predict.merge import nms, suppression_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinanet.config import PostprocessConfig
    from retinanet.predict.dense import DenseOutputs
    from retinanet.serve.schemas import Fate

Floats = npt.NDArray[np.float32]

MAX_COVERING: Final = 3
"""Maximum number of boxes that cover the place, returned for each level."""
COVERING_CANDIDATES: Final = 300
"""Number of covering boxes with the highest scores among which `MAX_COVERING` are chosen."""
SAME_BOX_IOU: Final = 0.7
"""Two covering boxes with a higher IoU are near-duplicates; only the one with the higher score is returned."""


@dataclass(frozen=True, slots=True)
class _FlatOutputs:
    """Dense outputs of all levels, concatenated. `starts` holds the first anchor of each level and the total count."""

    scores_AK: Floats
    boxes_A4: Floats
    anchors_A4: Floats
    starts: tuple[int, ...]

    @classmethod
    def of(cls, dense: DenseOutputs) -> _FlatOutputs:
        K = dense.levels[0].scores_HWCK.shape[-1]
        scores = [level.scores_HWCK.reshape(-1, K) for level in dense.levels]
        return cls(
            scores_AK=np.concatenate(scores),
            boxes_A4=np.concatenate([level.boxes_HWC4.reshape(-1, 4) for level in dense.levels]),
            anchors_A4=np.concatenate([level.anchors_HWC4.reshape(-1, 4) for level in dense.levels]),
            starts=(0, *np.cumsum([len(part) for part in scores]).tolist()),
        )


@dataclass(frozen=True, slots=True)
class _NmsResult:
    """Anchor and class id of each box that NMS keeps, highest score first, before `max_detections` applies."""

    anchor_D: npt.NDArray[np.int64]
    label_D: npt.NDArray[np.int64]


def explain(
    dense: DenseOutputs,
    *,
    x: float,
    y: float,
    width: int,
    height: int,
    classes: Sequence[str],
    threshold: float,
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
        threshold: score threshold; a detection has a higher score.
        config: post-processing of the model. `threshold` replaces its `score_threshold`.

    Returns:
        values that JSON can hold, as described by `ExplainResponse` in `schemas.py`.
    """
    flat = _FlatOutputs.of(dense)
    candidate_AK = _candidates(flat, threshold, config.candidates_per_level)
    kept = _nms(flat, candidate_AK, config)

    def proposal(anchor: int, label: int) -> dict[str, Any]:
        fate = _fate(flat, anchor, label, threshold=threshold, config=config, candidate_AK=candidate_AK, kept=kept)
        return {
            "class_id": label,
            "class": classes[label],
            "score": _score(flat.scores_AK[anchor, label]),
            "box": _box(flat.boxes_A4[anchor]),
            "anchor": _box(flat.anchors_A4[anchor]),
            **fate,
        }

    levels = []
    covers_A = _inside(flat.boxes_A4, x, y)
    for (level, row, column), start, end in zip(dense.at(x, y), flat.starts, flat.starts[1:], strict=False):
        at_CK = level.scores_HWCK[row, column]
        first = start + (row * level.scores_HWCK.shape[1] + column) * len(at_CK)
        anchor, label = np.unravel_index(int(at_CK.argmax()), at_CK.shape)
        levels.append(
            {
                "level": f"P{level.level}",
                "stride": level.stride,
                "position": _center(level.anchors_HWC4[row, column, 0]),
                "scores": [_score(score) for score in at_CK.max(axis=0)],
                "best": proposal(first + int(anchor), int(label)),
                "covering": [proposal(a, k) for a, k in _covering(flat, start + np.flatnonzero(covers_A[start:end]))],
            }
        )
    detections = [
        {
            "box": _box(flat.boxes_A4[a]),
            "score": _score(flat.scores_AK[a, k]),
            "class_id": int(k),
            "class": classes[k],
        }
        for a, k in list(zip(kept.anchor_D, kept.label_D, strict=True))[: config.max_detections]
    ]
    return {
        "x": x,
        "y": y,
        "width": width,
        "height": height,
        "threshold": threshold,
        "summary": _summary(levels, detections, x, y),
        "levels": levels,
        "detections": detections,
    }


def _candidates(flat: _FlatOutputs, threshold: float, per_level: int) -> npt.NDArray[np.bool_]:
    """Return which (anchor, class) pairs are candidates for NMS, (A, K).

    This follows the rule of `ops.candidates`, in numpy, because the server never imports torch.
    """
    candidate_AK = flat.scores_AK > threshold
    for start, end in pairwise(flat.starts):
        part = candidate_AK[start:end].reshape(-1)  # a view
        chosen = np.flatnonzero(part)
        if len(chosen) > per_level:
            scores_C = flat.scores_AK[start:end].reshape(-1)[chosen]
            part[:] = False
            part[chosen[(-scores_C).argsort(kind="stable")[:per_level]]] = True
    return candidate_AK


def _nms(flat: _FlatOutputs, candidate_AK: npt.NDArray[np.bool_], config: PostprocessConfig) -> _NmsResult:
    anchor_C, label_C = np.nonzero(candidate_AK)
    group_C = suppression_groups(label_C, config)
    keep_D = nms(flat.boxes_A4[anchor_C], flat.scores_AK[anchor_C, label_C], group_C, config.nms_threshold)
    return _NmsResult(anchor_D=anchor_C[keep_D], label_D=label_C[keep_D])


def _fate(
    flat: _FlatOutputs,
    anchor: int,
    label: int,
    *,
    threshold: float,
    config: PostprocessConfig,
    candidate_AK: npt.NDArray[np.bool_],
    kept: _NmsResult,
) -> dict[str, Any]:
    """Return what happened to the box of an anchor: its fate, the reason in words, and the detection involved.

    The field `detection` is the index of the detection that the box became or that suppressed the box. The field `iou`
    is set for a suppressed box only.
    """

    def result(fate: Fate, why: str, detection: int | None = None, overlap: float | None = None) -> dict[str, Any]:
        return {"fate": fate, "why": why, "detection": detection, "iou": overlap}

    score = float(flat.scores_AK[anchor, label])
    if not score > threshold:
        return result("below_threshold", f"score {score:.3f} is not above the threshold {threshold:g}")
    if not candidate_AK[anchor, label]:
        limit = config.candidates_per_level
        return result("not_a_candidate", f"{limit} boxes of this level have higher scores, the limit of candidates")
    same = np.flatnonzero((kept.anchor_D == anchor) & (kept.label_D == label))
    if len(same):
        number = int(same[0])
        if number < config.max_detections:
            return result("detected", f"this box is detection {number + 1}", number)
        return result(
            "beyond_max_detections", f"{config.max_detections} detections have higher scores, the limit per image"
        )
    # Several kept boxes can overlap this one too much. NMS removed it because of the one with the highest score.
    overlap_D = _iou(flat.boxes_A4[anchor], flat.boxes_A4[kept.anchor_D])
    better_D = flat.scores_AK[kept.anchor_D, kept.label_D] >= score
    better_D &= (kept.label_D == label) | config.agnostic_nms
    number = int(np.flatnonzero(better_D & (overlap_D > config.nms_threshold))[0])
    overlap = round(float(overlap_D[number]), 4)
    detection = number if number < config.max_detections else None
    other = f"detection {number + 1}" if detection is not None else "a box beyond the limit of detections"
    why = f"suppressed by {other}, which overlaps this box (IoU {overlap:.2f}) and has a higher score"
    return result("suppressed", why, detection, overlap)


def _covering(flat: _FlatOutputs, covering: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
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


def _summary(levels: list[dict[str, Any]], detections: list[dict[str, Any]], x: float, y: float) -> str:
    """Return one or two sentences: why there is a detection at (x, y), or why there is none."""
    covering = [
        (number, d)
        for number, d in enumerate(detections, 1)
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
    return f"No detection here. The box with the highest score is from {level}: {best['class']}, {best['why']}."


def _score(value: np.floating[Any]) -> float:
    return round(float(value), 6)


def _center(box_4: Floats) -> list[float]:
    return [round(float(value), 2) for value in (box_4[:2] + box_4[2:]) / 2]


def _box(box_4: Floats) -> list[float]:
    return [round(float(value), 2) for value in box_4]
