"""Detections of an image's tiles, or of several views of it, made one. Needs numpy and supervision, never torch.

Boxes are xyxy in the image's original pixels. Shape suffixes: D detections, K kept, W others, B, R, S some of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import supervision as sv

from retinanet.types import ArrayDetections, concatenate

if TYPE_CHECKING:
    from retinanet.config import PostprocessConfig

AT_BORDER: Final = 0.01
"""Share of a tile's side within which a box counts as ending at its border."""
COVERED: Final = 0.6
"""Share of such a box within another from which it is taken for a part of the same object."""
MOST_PAIRS: Final = 1_000_000
"""Pairs of boxes that are compared at once."""
SAME: Final = 0.65
"""IoU from which boxes of two views are taken for the same object's."""
HALF: Final = 0.5
"""Share of a part's score that a larger part of the same object must have."""

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


def nms(boxes_D4: Floats, scores_D: Floats, labels_D: Indices, threshold: float) -> Indices:
    """Return what per-class non-maximum suppression keeps, best first, equal scores in their order.

    Of two boxes of a class that overlap by more than the IoU `threshold` the better stays, as in
    `torchvision.ops.batched_nms`. supervision's `box_non_max_suppression` does not keep the first of equal scores,
    and holds the IoU of all pairs of all classes in memory.
    """
    order = np.argsort(-scores_D, kind="stable")
    keep = np.ones(len(order), np.bool_)  # in that order
    for label in np.unique(labels_D):
        places = np.flatnonzero(labels_D[order] == label)
        boxes_B4 = boxes_D4[order[places]]
        alive = np.ones(len(places), np.bool_)
        for i in range(len(places)):
            if alive[i]:
                iou_B = sv.box_iou_batch(boxes_B4[i : i + 1], boxes_B4[i + 1 :])[0]
                alive[i + 1 :] &= ~(iou_B > threshold)
        keep[places] = alive
    return order[keep]


def merge_views(views: Sequence[ArrayDetections], *, config: PostprocessConfig) -> ArrayDetections:
    """Return one image's detections from those of several views of it (flipped, at other sizes), best first.

    Of boxes of a class that overlap by more than `nms_threshold` the best stays, at the mean of all that overlap it by
    more than `SAME`, weighted by score (box voting, arXiv 1505.01749, section 4.3). Its score is the mean of the views'
    best scores for it: what only one view sees counts for less.

    Args:
        views: of the same image, each in its original pixels.
        config: the thresholds.
    """
    all_D = concatenate(views)
    if not len(all_D):
        return all_D
    boxes_D4, scores_D, labels_D = all_D.boxes_D4, all_D.scores_D, all_D.labels_D
    view_D = np.concatenate([np.full(len(view), i) for i, view in enumerate(views)])
    keep_K = nms(boxes_D4, scores_D, labels_D, config.nms_threshold)
    voted, means = [], []
    for kept_R in _split(keep_K, len(boxes_D4)):
        iou_RD = sv.box_iou_batch(boxes_D4[kept_R], boxes_D4)
        same_RD = (iou_RD > SAME) & (labels_D[kept_R, None] == labels_D)
        same_RD[np.arange(len(kept_R)), kept_R] = True  # a box without area overlaps nothing, itself neither
        weight_RD = same_RD * scores_D
        voted.append(weight_RD @ boxes_D4 / weight_RD.sum(axis=1, keepdims=True))
        best = [weight_RD[:, view_D == i].max(axis=1) for i, view in enumerate(views) if len(view)]
        means.append(np.sum(best, axis=0) / len(views))
    mean_K = np.concatenate(means).astype(np.float32)
    order = np.argsort(-mean_K, kind="stable")
    order = order[mean_K[order] > config.score_threshold][: config.max_detections]
    return ArrayDetections(
        boxes_D4=np.concatenate(voted).astype(np.float32)[order],
        scores_D=mean_K[order],
        labels_D=labels_D[keep_K][order],
    )


def merge_tiles(
    whole: ArrayDetections,
    parts: Sequence[ArrayDetections],
    tiles: Sequence[tuple[int, int, int, int]],
    *,
    width: int,
    height: int,
    whole_from: float,
    config: PostprocessConfig,
) -> ArrayDetections:
    """Return the detections of an image from those of its tiles and of the whole, best first.

    Of the whole, only what is longer than `whole_from`: the tiles show all else at the right scale, where the shrunken
    image only adds errors (cells a third of their size are taken for platelets).

    What ends at a border between tiles may be a part of an object only. Such boxes come second: one that lies by more
    than `COVERED` of itself in a box of its class that was seen whole is that object again, and goes; so does one that
    lies in a larger one that ends at another border, unless that scores less than `HALF` of it.

    Args:
        whole: detections in the whole image, its pixels.
        parts: detections in each tile, in the tile's own pixels.
        tiles: xyxy of each tile in the image's pixels.
        width: of the image.
        height: of the image.
        whole_from: pixels; what is longer is taken from the whole image too.
        config: the thresholds; `max_detections` holds for each tile, not for their sum.
    """
    whole = whole[(whole.boxes_D4[:, 2:] - whole.boxes_D4[:, :2]).max(axis=1, initial=0) > whole_from]
    placed, cut = [whole], [np.zeros(len(whole), np.bool_)]
    for part, (x1, y1, x2, y2) in zip(parts, tiles, strict=True):
        margin = AT_BORDER * max(x2 - x1, y2 - y1)
        left, top, right, bottom = part.boxes_D4.T
        at = np.zeros(len(part), np.bool_)
        at |= (left < margin) & (x1 > 0)
        at |= (top < margin) & (y1 > 0)
        at |= (right > x2 - x1 - margin) & (x2 < width)
        at |= (bottom > y2 - y1 - margin) & (y2 < height)
        boxes_D4 = part.boxes_D4 + np.array([x1, y1, x1, y1], np.float32)
        placed.append(ArrayDetections(boxes_D4=boxes_D4, scores_D=part.scores_D, labels_D=part.labels_D))
        cut.append(at)
    all_D, cut_D = concatenate(placed), np.concatenate(cut)
    first = _kept(all_D, np.flatnonzero(~cut_D), config)
    second = np.flatnonzero(cut_D)
    known = np.zeros(len(second), np.bool_)
    for label in np.unique(all_D.labels_D[second]):
        here = all_D.labels_D[second] == label
        seen_W4 = all_D.boxes_D4[first[all_D.labels_D[first] == label]]
        part_D4, part_scores_D = all_D.boxes_D4[second[here]], all_D.scores_D[second[here]]
        known[here] = (_covered(part_D4, seen_W4) > COVERED) | _in_a_larger(part_D4, part_scores_D)
    keep_D = np.concatenate([first, _kept(all_D, second[~known], config)])
    return all_D[keep_D[np.argsort(-all_D.scores_D[keep_D], kind="stable")]]


def _kept(found: ArrayDetections, index: Indices, config: PostprocessConfig) -> Indices:
    """Return those of `index` that NMS keeps."""
    some = found[index]
    return index[nms(some.boxes_D4, some.scores_D, some.labels_D, config.nms_threshold)]


def _split(index: Indices, others: int) -> Iterator[Indices]:
    """Yield parts of `index` that are compared with `others` boxes at once: memory stays bounded."""
    rows = max(1, MOST_PAIRS // max(1, others))
    yield from (index[i : i + rows] for i in range(0, len(index), rows))


def _common(first_B4: Floats, second_W4: Floats) -> Floats:
    """Return the area that each of the first shares with each of the second, (B, W)."""
    low_BW2 = np.maximum(first_B4[:, None, :2], second_W4[None, :, :2])
    high_BW2 = np.minimum(first_B4[:, None, 2:], second_W4[None, :, 2:])
    sides_BW2 = (high_BW2 - low_BW2).clip(min=0)
    common_BW: Floats = sides_BW2[..., 0] * sides_BW2[..., 1]
    return common_BW


def _areas(boxes_D4: Floats) -> Floats:
    area_D: Floats = (boxes_D4[:, 2:] - boxes_D4[:, :2]).prod(axis=1)
    return area_D


def _in_a_larger(boxes_D4: Floats, scores_D: Floats) -> npt.NDArray[np.bool_]:
    """Return which boxes lie by more than `COVERED` of themselves in a larger one that scores enough, (D,) bool."""
    area_D = _areas(boxes_D4)
    order = np.argsort(-area_D, kind="stable")
    out = np.zeros(len(area_D), np.bool_)
    for rows in _split(np.arange(len(order)), len(order)):
        some, larger = order[rows], order[: rows[-1] + 1]
        inside_SL = _common(boxes_D4[some], boxes_D4[larger]) > COVERED * area_D[some, None]
        inside_SL &= area_D[None, larger] > 1.05 * area_D[some, None]  # not each other's
        inside_SL &= scores_D[None, larger] >= HALF * scores_D[some, None]
        out[some] = inside_SL.any(axis=1)
    return out


def _covered(boxes_D4: Floats, others_W4: Floats) -> Floats:
    """Return the largest share of each box that lies in one of the others, (D,)."""
    out_D = np.zeros(len(boxes_D4), np.float32)
    if len(others_W4):
        for some in _split(np.arange(len(boxes_D4)), len(others_W4)):
            area_B = _areas(boxes_D4[some]).clip(min=1e-9)
            out_D[some] = (_common(boxes_D4[some], others_W4) / area_B[:, None]).max(axis=1)
    return out_D
