"""Dense predictions to detections: threshold, top-k, decode, clip, per-class NMS, back to original pixels.

Shape suffixes: N batch, A anchors, K classes, C candidates of a picture, D detections of a picture.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch

from retinanet.boxes import clip, decode, iou
from retinanet.kernels.candidates import candidates
from retinanet.kernels.nms import nms
from retinanet.types import HeadOutputs, ImageDetections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.config import PostprocessConfig
    from retinanet.images import Frame

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


def postprocess(outputs: HeadOutputs, *, frames: Sequence[Frame], config: PostprocessConfig) -> list[ImageDetections]:
    """Return each picture's detections in its own original pixels, best first.

    Per level, the `candidates_per_level` best scores above `score_threshold` are decoded (arXiv 1708.02002, section
    4.1, "Inference"); what overlaps a better box of its class by more than `nms_threshold` goes; `max_detections` stay.

    Args:
        outputs: of the network, any float type; decoded in float32.
        frames: original and resized size of each picture of the batch.
        config: the thresholds.
    """
    return [
        _one_picture(logits_AK, deltas_A4, outputs, frame, config)
        for logits_AK, deltas_A4, frame in zip(outputs.logits_NAK, outputs.deltas_NA4, frames, strict=True)
    ]


def merge_views(views: Sequence[ImageDetections], *, config: PostprocessConfig) -> ImageDetections:
    """Return one picture's detections from those of several views of it (flipped, at other sizes), best first.

    Of boxes of a class that overlap by more than `nms_threshold` the best stays, at the mean of all that overlap it by
    more than `SAME`, weighted by score (box voting, arXiv 1505.01749, section 4.3). Its score is the mean of the views'
    best scores for it: what only one view sees counts for less.

    Args:
        views: of the same picture, each in its original pixels.
        config: the thresholds.
    """
    boxes_D4 = torch.cat([view.boxes_D4 for view in views])
    scores_D = torch.cat([view.scores_D for view in views])
    labels_D = torch.cat([view.labels_D for view in views])
    view_D = torch.cat([torch.full_like(view.labels_D, i) for i, view in enumerate(views)])
    keep_K = nms(boxes_D4, scores_D, labels_D, threshold=config.nms_threshold)
    voted, means = [], []
    for kept_R in torch.split(keep_K, _rows(len(boxes_D4))):
        iou_RD = iou(boxes_D4[kept_R, None], boxes_D4[None])
        same_RD = (iou_RD > SAME) & (labels_D[kept_R, None] == labels_D)
        weight_RD = same_RD * scores_D
        voted.append(weight_RD @ boxes_D4 / weight_RD.sum(dim=1, keepdim=True))
        best = [weight_RD[:, view_D == i].amax(dim=1) for i, view in enumerate(views) if len(view.scores_D)]
        means.append(torch.stack(best).sum(dim=0) / len(views) if best else scores_D[kept_R])
    if not voted:
        return views[0]
    mean_K = torch.cat(means)
    order = mean_K.argsort(descending=True, stable=True)
    order = order[mean_K[order] > config.score_threshold][: config.max_detections]
    return ImageDetections(boxes_D4=torch.cat(voted)[order], scores_D=mean_K[order], labels_D=labels_D[keep_K][order])


def merge_tiles(
    whole: ImageDetections,
    parts: Sequence[ImageDetections],
    tiles: Sequence[tuple[int, int, int, int]],
    *,
    width: int,
    height: int,
    whole_from: float,
    config: PostprocessConfig,
) -> ImageDetections:
    """Return the detections of a picture from those of its tiles and of the whole, best first.

    Of the whole, only what is longer than `whole_from`: the tiles show all else at the right scale, where the shrunken
    picture only adds errors (cells a third of their size are taken for platelets).

    What ends at a border between tiles may be a part of an object only. Such boxes come second: one that lies by more
    than `COVERED` of itself in a box of its class that was seen whole is that object again, and goes; so does one that
    lies in a larger one that ends at another border, unless that scores less than `HALF` of it.

    Args:
        whole: detections in the whole picture, its pixels.
        parts: detections in each tile, in the tile's own pixels.
        tiles: xyxy of each tile in the picture's pixels.
        width: of the picture.
        height: of the picture.
        whole_from: pixels; what is longer is taken from the whole picture too.
        config: the thresholds; `max_detections` holds for each tile, not for their sum.
    """
    long_D = (whole.boxes_D4[:, 2:] - whole.boxes_D4[:, :2]).amax(dim=1) > whole_from
    whole = ImageDetections(
        boxes_D4=whole.boxes_D4[long_D], scores_D=whole.scores_D[long_D], labels_D=whole.labels_D[long_D]
    )
    boxes, cut = [whole.boxes_D4], [whole.scores_D.new_zeros(len(whole.scores_D), dtype=torch.bool)]
    for part, (x1, y1, x2, y2) in zip(parts, tiles, strict=True):
        margin = AT_BORDER * max(x2 - x1, y2 - y1)
        left, top, right, bottom = part.boxes_D4.unbind(1)
        at = torch.zeros_like(part.scores_D, dtype=torch.bool)
        at |= (left < margin) & (x1 > 0)
        at |= (top < margin) & (y1 > 0)
        at |= (right > x2 - x1 - margin) & (x2 < width)
        at |= (bottom > y2 - y1 - margin) & (y2 < height)
        boxes.append(part.boxes_D4 + part.boxes_D4.new_tensor([x1, y1, x1, y1]))
        cut.append(at)
    boxes_D4, cut_D = torch.cat(boxes), torch.cat(cut)
    scores_D = torch.cat([whole.scores_D, *(part.scores_D for part in parts)])
    labels_D = torch.cat([whole.labels_D, *(part.labels_D for part in parts)])
    first = _kept(boxes_D4, scores_D, labels_D, torch.nonzero(~cut_D).squeeze(1), config)
    second = torch.nonzero(cut_D).squeeze(1)
    known = torch.zeros(len(second), dtype=torch.bool, device=boxes_D4.device)
    for label in torch.unique(labels_D[second]).tolist():
        here = labels_D[second] == label
        seen_W4 = boxes_D4[first[labels_D[first] == label]]
        part_D4, part_scores_D = boxes_D4[second[here]], scores_D[second[here]]
        known[here] = (_covered(part_D4, seen_W4) > COVERED) | _in_a_larger(part_D4, part_scores_D)
    second = _kept(boxes_D4, scores_D, labels_D, second[~known], config)
    keep_D = torch.cat([first, second])
    keep_D = keep_D[scores_D[keep_D].argsort(descending=True, stable=True)]
    return ImageDetections(boxes_D4=boxes_D4[keep_D], scores_D=scores_D[keep_D], labels_D=labels_D[keep_D])


def _kept(boxes_D4: Tensor, scores_D: Tensor, labels_D: Tensor, index: Tensor, config: PostprocessConfig) -> Tensor:
    """Return those of `index` that NMS keeps."""
    return index[nms(boxes_D4[index], scores_D[index], labels_D[index], threshold=config.nms_threshold)]


def _rows(others: int) -> int:
    """Return how many boxes are compared with `others` boxes at once: memory stays bounded."""
    return max(1, MOST_PAIRS // max(1, others))


def _in_a_larger(boxes_D4: Tensor, scores_D: Tensor) -> Tensor:
    """Return which boxes lie by more than `COVERED` of themselves in a larger one that scores enough, (D,) bool."""
    area_D = (boxes_D4[:, 2:] - boxes_D4[:, :2]).prod(dim=1)
    order = area_D.argsort(descending=True)
    out = torch.zeros_like(area_D, dtype=torch.bool)
    for rows in torch.split(torch.arange(len(order), device=order.device), _rows(len(order))):
        some, larger = order[rows], order[: rows[-1] + 1]
        low = torch.maximum(boxes_D4[some, None, :2], boxes_D4[None, larger, :2])
        high = torch.minimum(boxes_D4[some, None, 2:], boxes_D4[None, larger, 2:])
        common_SL = (high - low).clamp(min=0).prod(dim=2)
        inside_SL = common_SL > COVERED * area_D[some, None]
        inside_SL &= area_D[None, larger] > 1.05 * area_D[some, None]  # not each other's
        inside_SL &= scores_D[None, larger] >= HALF * scores_D[some, None]
        out[some] = inside_SL.any(dim=1)
    return out


def _covered(boxes_D4: Tensor, others_W4: Tensor) -> Tensor:
    """Return the largest share of each box that lies in one of the others, (D,)."""
    if not len(others_W4):
        return boxes_D4.new_zeros(len(boxes_D4))
    out = []
    for box_B4 in torch.split(boxes_D4, _rows(len(others_W4))):
        low = torch.maximum(box_B4[:, None, :2], others_W4[None, :, :2])
        high = torch.minimum(box_B4[:, None, 2:], others_W4[None, :, 2:])
        common_BW = (high - low).clamp(min=0).prod(dim=2)
        area_B = (box_B4[:, 2:] - box_B4[:, :2]).prod(dim=1).clamp(min=1e-9)
        out.append((common_BW / area_B[:, None]).max(dim=1).values)
    return torch.cat(out)


def _one_picture(
    logits_AK: Tensor, deltas_A4: Tensor, outputs: HeadOutputs, frame: Frame, config: PostprocessConfig
) -> ImageDetections:
    # On logits: the sigmoid is taken of what is left, not of every anchor and class.
    anchor_C, label_C, logit_C = candidates(
        logits_AK,
        outputs.anchors_per_level,
        threshold=_logit(config.score_threshold),
        most=config.candidates_per_level,
    )
    score_C = logit_C.sigmoid()
    box_C4 = decode(deltas_A4[anchor_C].float(), outputs.anchors_A4[anchor_C])
    box_C4 = clip(box_C4, width=frame.resized_width, height=frame.resized_height)
    keep_D = nms(box_C4, score_C, label_C, threshold=config.nms_threshold, limit=config.max_detections)
    to_original = box_C4.new_tensor([frame.width / frame.resized_width, frame.height / frame.resized_height] * 2)
    return ImageDetections(boxes_D4=box_C4[keep_D] * to_original, scores_D=score_C[keep_D], labels_D=label_C[keep_D])


def _logit(probability: float) -> float:
    if probability <= 0:
        return -math.inf
    return math.inf if probability >= 1 else math.log(probability / (1 - probability))
