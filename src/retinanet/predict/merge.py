"""Merge the detections of an image's tiles, or of several views of an image. Needs numpy and supervision, never torch.

Boxes are xyxy in original pixels. Shape suffixes: D detections, K kept detections, W other boxes, L larger boxes;
B, R, S a subset of the boxes.
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
"""Largest distance of a cut box from the tile border, as a share of the tile's side."""
COVERED: Final = 0.6
"""A cut box is a part of the same object if more than this share of its area lies inside another box of its class."""
MAX_PAIRS: Final = 1_000_000
"""Number of box pairs that are compared at once, to limit memory."""
SAME_OBJECT_IOU: Final = 0.65
"""Boxes of two views show the same object if their IoU is higher than this value."""
MIN_SCORE_RATIO: Final = 0.5
"""A larger cut box replaces a smaller one only if its score is at least this share of the smaller one's score."""

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


def nms(boxes_D4: Floats, scores_D: Floats, labels_D: Indices, threshold: float) -> Indices:
    """Return the indices of the boxes that non-maximum suppression within each class keeps, best first.

    A box is suppressed if its IoU with a better box of its class is higher than `threshold`, as in
    `torchvision.ops.batched_nms`. Of equal scores, the first is better. supervision's `box_non_max_suppression` is not
    used: it does not keep the first of equal scores, and it stores the IoU of all box pairs of all classes.
    """
    order = np.argsort(-scores_D, kind="stable")
    keep = np.ones(len(order), np.bool_)  # by position in `order`
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


def suppression_groups(labels_D: Indices, config: PostprocessConfig) -> Indices:
    """Return the class ids within which NMS compares boxes: the given ones, or 0 for all if it is class-agnostic."""
    return np.zeros_like(labels_D) if config.agnostic_nms else labels_D


def merge_views(views: Sequence[ArrayDetections], *, config: PostprocessConfig) -> ArrayDetections:
    """Return the detections of one image from those of several views (flipped, rescaled), best first.

    Non-maximum suppression with `nms_threshold` selects the best box of each object. Its corners are replaced by the
    score-weighted mean of all boxes of its class with an IoU above `SAME_OBJECT_IOU` (box voting, arXiv 1505.01749,
    section 4.3). Its score is the mean, over all views, of the best score of these boxes; a view without such a box
    counts as 0. With `agnostic_nms`, the selection is class-agnostic; corners and score still come from boxes of one
    class.

    Args:
        views: detections of each view, in original pixels of the image.
        config: thresholds.
    """
    all_D = concatenate(views)
    if not len(all_D):
        return all_D
    boxes_D4, scores_D, labels_D = all_D.boxes_D4, all_D.scores_D, all_D.labels_D
    view_D = np.concatenate([np.full(len(view), i) for i, view in enumerate(views)])
    keep_K = nms(boxes_D4, scores_D, suppression_groups(labels_D, config), config.nms_threshold)
    voted, means = [], []
    for kept_R in _split_rows(keep_K, len(boxes_D4)):
        iou_RD = sv.box_iou_batch(boxes_D4[kept_R], boxes_D4)
        same_RD = (iou_RD > SAME_OBJECT_IOU) & (labels_D[kept_R, None] == labels_D)
        same_RD[np.arange(len(kept_R)), kept_R] = True  # the IoU of a box without area with itself is 0
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
    """Return the detections of an image from those of its tiles and of the whole image, best first.

    Detections of the whole image are used only if their longer side exceeds `whole_from`. Tiles show smaller objects at
    the right scale, and the reduced image adds errors (for example, cells at a third of their size are detected as
    platelets).

    A box that ends at a border between tiles may show only a part of an object. It is dropped in two cases: more than
    `COVERED` of its area lies inside a complete box of its class, or inside a larger cut box of its class whose score
    is at least `MIN_SCORE_RATIO` of its own. The remaining cut boxes pass through non-maximum suppression. With
    `agnostic_nms`, the class is ignored in all of these comparisons.

    Args:
        whole: detections in the whole image, original pixels.
        parts: detections in each tile, in pixels of the tile.
        tiles: position of each tile, xyxy, original pixels.
        width: width of the image, original pixels.
        height: height of the image, original pixels.
        whole_from: longest side of a box, in original pixels, up to which detections of the whole image are dropped.
        config: thresholds. `max_detections` applies to each tile, not to the result.
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
    complete_K = _kept_by_nms(all_D, np.flatnonzero(~cut_D), config)
    cut_off_D = np.flatnonzero(cut_D)
    group_D = suppression_groups(all_D.labels_D, config)
    duplicate_D = np.zeros(len(cut_off_D), np.bool_)
    for group in np.unique(group_D[cut_off_D]):
        of_group_D = group_D[cut_off_D] == group
        complete_W4 = all_D.boxes_D4[complete_K[group_D[complete_K] == group]]
        part_D4, part_scores_D = all_D.boxes_D4[cut_off_D[of_group_D]], all_D.scores_D[cut_off_D[of_group_D]]
        duplicate_D[of_group_D] = (_covered_share(part_D4, complete_W4) > COVERED) | _inside_larger(
            part_D4, part_scores_D
        )
    keep_D = np.concatenate([complete_K, _kept_by_nms(all_D, cut_off_D[~duplicate_D], config)])
    return all_D[keep_D[np.argsort(-all_D.scores_D[keep_D], kind="stable")]]


def _kept_by_nms(found: ArrayDetections, index: Indices, config: PostprocessConfig) -> Indices:
    """Return the elements of `index` whose detections NMS keeps."""
    some = found[index]
    group_D = suppression_groups(some.labels_D, config)
    return index[nms(some.boxes_D4, some.scores_D, group_D, config.nms_threshold)]


def _split_rows(index: Indices, others: int) -> Iterator[Indices]:
    """Yield slices of `index`, so that each slice and `others` boxes form at most `MAX_PAIRS` pairs."""
    rows = max(1, MAX_PAIRS // max(1, others))
    yield from (index[i : i + rows] for i in range(0, len(index), rows))


def _intersections(first_B4: Floats, second_W4: Floats) -> Floats:
    """Return the area of the intersection of each box in `first_B4` with each box in `second_W4`, (B, W)."""
    low_BW2 = np.maximum(first_B4[:, None, :2], second_W4[None, :, :2])
    high_BW2 = np.minimum(first_B4[:, None, 2:], second_W4[None, :, 2:])
    sides_BW2 = (high_BW2 - low_BW2).clip(min=0)
    common_BW: Floats = sides_BW2[..., 0] * sides_BW2[..., 1]
    return common_BW


def _areas(boxes_D4: Floats) -> Floats:
    area_D: Floats = (boxes_D4[:, 2:] - boxes_D4[:, :2]).prod(axis=1)
    return area_D


def _inside_larger(boxes_D4: Floats, scores_D: Floats) -> npt.NDArray[np.bool_]:
    """Return whether more than `COVERED` of each box lies inside a larger box that scores enough, (D,) bool."""
    area_D = _areas(boxes_D4)
    order = np.argsort(-area_D, kind="stable")
    out = np.zeros(len(area_D), np.bool_)
    for rows in _split_rows(np.arange(len(order)), len(order)):
        some, larger = order[rows], order[: rows[-1] + 1]
        inside_SL = _intersections(boxes_D4[some], boxes_D4[larger]) > COVERED * area_D[some, None]
        inside_SL &= area_D[None, larger] > 1.05 * area_D[some, None]  # so that two boxes never drop each other
        inside_SL &= scores_D[None, larger] >= MIN_SCORE_RATIO * scores_D[some, None]
        out[some] = inside_SL.any(axis=1)
    return out


def _covered_share(boxes_D4: Floats, others_W4: Floats) -> Floats:
    """Return the largest share of each box's area that lies inside one of the other boxes, (D,)."""
    out_D = np.zeros(len(boxes_D4), np.float32)
    if len(others_W4):
        for some in _split_rows(np.arange(len(boxes_D4)), len(others_W4)):
            area_B = _areas(boxes_D4[some]).clip(min=1e-9)
            out_D[some] = (_intersections(boxes_D4[some], others_W4) / area_B[:, None]).max(axis=1)
    return out_D
