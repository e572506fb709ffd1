"""Anchors and ground truth to what every anchor should say.

Shape suffixes: N batch, A anchors, G ground-truth boxes of one picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from retinanet.boxes import area, intersection
from retinanet.types import AnchorTargets, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.config import MatchConfig


def match(anchors_A4: Tensor, targets: Sequence[Target], config: MatchConfig) -> AnchorTargets:
    """Assign every anchor of every picture to an object, to the background, or to neither.

    An anchor is positive where its highest IoU with an object is at least `positive_iou`, and answers for that object
    (of several with the same IoU, the first); negative where it is below `negative_iou`; ignored between the two.
    An anchor that is not positive and lies within a crowd region by at least `positive_iou` of its own area is ignored,
    as COCO evaluation does with detections. Source: arXiv 1708.02002, section 4.

    With `low_quality_matches`, the anchors that overlap an object most are positive too, whatever that IoU is (but it
    must be above 0), each for the object that it overlaps most, as in torchvision and Detectron2.

    Args:
        anchors_A4: xyxy, input pixels.
        targets: one for each picture.
        config: the thresholds.
    """
    rows = [_match_one(anchors_A4, target, config) for target in targets]
    positive_NA, ignored_NA, matched_NA = (torch.stack(column) for column in zip(*rows, strict=True))
    labels_NA = torch.zeros_like(matched_NA)
    boxes_NA4 = anchors_A4.new_zeros(*matched_NA.shape, 4)
    for n, target in enumerate(targets):
        positive_A = positive_NA[n]
        matched_P = matched_NA[n][positive_A]
        labels_NA[n, positive_A] = target.labels_G[matched_P]
        boxes_NA4[n, positive_A] = target.boxes_G4[matched_P].to(boxes_NA4.dtype)
    return AnchorTargets(
        positive_NA=positive_NA, ignored_NA=ignored_NA, labels_NA=labels_NA, boxes_NA4=boxes_NA4, matched_NA=matched_NA
    )


def best_overlaps(anchors_A4: Tensor, boxes_G4: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each anchor's highest IoU and the box it has it with, and whether the anchor is some box's best.

    One box at a time and a running maximum: memory grows with the anchors alone, never with anchors times boxes.

    Returns:
        best_iou_A: highest IoU with any box; 0 where there is none.
        best_box_A: int64 index of that box, the first of equals; 0 where there is none.
        is_best_A: bool, no anchor overlaps some box more than this one does, and it does overlap.
    """
    area_A = area(anchors_A4)
    best_iou_A = anchors_A4.new_zeros(len(anchors_A4))
    best_box_A = torch.zeros(len(anchors_A4), dtype=torch.int64, device=anchors_A4.device)
    is_best_A = torch.zeros(len(anchors_A4), dtype=torch.bool, device=anchors_A4.device)
    for g, box_4 in enumerate(boxes_G4.to(anchors_A4.dtype)):
        common_A = intersection(anchors_A4, box_4)
        iou_A = common_A / (area_A + area(box_4) - common_A)
        better_A = iou_A > best_iou_A
        best_iou_A = torch.where(better_A, iou_A, best_iou_A)
        best_box_A.masked_fill_(better_A, g)
        highest = iou_A.max()
        is_best_A |= (iou_A == highest) & (highest > 0)
    return best_iou_A, best_box_A, is_best_A


def _match_one(anchors_A4: Tensor, target: Target, config: MatchConfig) -> tuple[Tensor, Tensor, Tensor]:
    object_index_O = torch.nonzero(~target.crowd_G).squeeze(1)
    best_iou_A, best_object_A, is_best_A = best_overlaps(anchors_A4, target.boxes_G4[object_index_O])
    positive_A = best_iou_A >= config.positive_iou
    if config.low_quality_matches:
        positive_A = positive_A | is_best_A
    # A threshold of 0 must not make anchors positive for nothing.
    positive_A &= best_iou_A > 0
    ignored_A = (best_iou_A >= config.negative_iou) & ~positive_A
    area_A = area(anchors_A4)
    for box_4 in target.boxes_G4[target.crowd_G].to(anchors_A4.dtype):
        ignored_A |= (intersection(anchors_A4, box_4) >= config.positive_iou * area_A) & ~positive_A
    if len(object_index_O):
        matched_A = torch.where(positive_A, object_index_O[best_object_A], 0)
    else:
        matched_A = torch.zeros_like(best_object_A)
    return positive_A, ignored_A, matched_A
