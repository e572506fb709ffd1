"""Matching, candidates and NMS in short, slow code. Tests compare the C and the torch forms with these functions.

The float32 operations are in the order of the formulas, on whole matrices.
Shape suffixes: A anchors, G ground-truth boxes, L anchors of a level, K classes.
"""

from __future__ import annotations

import torch

from retinanet.boxes import area, intersection
from retinanet.types import AnchorTargets


def match(anchors_A4, targets, config):
    """Match by comparing every anchor with every ground-truth box."""
    columns = []
    for target in targets:
        boxes_G4 = target.boxes_G4.to(anchors_A4.dtype)
        common_AG = intersection(anchors_A4[:, None], boxes_G4[None])
        iou_AG = common_AG / (area(anchors_A4)[:, None] + area(boxes_G4) - common_AG)
        iou_AG = torch.where((iou_AG > 0) & ~target.crowd_G, iou_AG, 0)
        best_A = torch.zeros(len(anchors_A4), dtype=torch.int64)
        highest_A = anchors_A4.new_zeros(len(anchors_A4))
        positive_A = torch.zeros(len(anchors_A4), dtype=torch.bool)
        if iou_AG.numel():
            highest_A = iou_AG.amax(1)
            best_A = (iou_AG == highest_A[:, None]).int().argmax(1)  # the first of equal IoUs
            positive_A = (highest_A >= config.positive_iou) & (highest_A > 0)
            if config.low_quality_matches:
                positive_A |= ((iou_AG == iou_AG.amax(0)) & (iou_AG > 0)).any(1)
        in_crowd_AG = (common_AG >= config.positive_iou * area(anchors_A4)[:, None]) & (common_AG > 0)
        ignored_A = (highest_A >= config.negative_iou) | (in_crowd_AG & target.crowd_G).any(1)
        labels_A, matched_A = torch.zeros_like(best_A), torch.where(positive_A, best_A, 0)
        boxes_A4 = torch.zeros_like(anchors_A4)
        labels_A[positive_A] = target.labels_G[best_A[positive_A]]
        boxes_A4[positive_A] = boxes_G4[best_A[positive_A]]
        columns.append((positive_A, ignored_A & ~positive_A, labels_A, boxes_A4, matched_A))
    positive, ignored, labels, boxes, matched = (torch.stack(column) for column in zip(*columns, strict=True))
    return AnchorTargets(
        positive_NA=positive, ignored_NA=ignored, labels_NA=labels, boxes_NA4=boxes, matched_NA=matched
    )


def candidates(logits_AK, anchors_per_level, *, threshold, most):
    """Return the candidates as three lists (anchors, class ids, logits), from a full sort of each level."""
    rows, first = [], 0
    threshold = torch.tensor(threshold, dtype=torch.float32).item()
    for logits_LK in torch.split(logits_AK.float(), list(anchors_per_level)):
        values = logits_LK.flatten().tolist()
        above = [i for i, value in enumerate(values) if value > threshold]
        above.sort(key=lambda i: -values[i])
        rows += [(first + i // logits_AK.shape[1], i % logits_AK.shape[1], values[i]) for i in above[:most]]
        first += len(logits_LK)
    return [[row[i] for row in rows] for i in range(3)]


def nms(boxes_B4, scores_B, labels_B, *, threshold, limit=None):
    """Return the indices of the kept boxes: by falling score, each box is compared with all kept boxes of its class."""
    area_B = (boxes_B4[:, 2] - boxes_B4[:, 0]) * (boxes_B4[:, 3] - boxes_B4[:, 1])
    kept = []
    for i in scores_B.argsort(descending=True, stable=True).tolist():
        own = [k for k in kept if labels_B[k] == labels_B[i]]
        common = intersection(boxes_B4[i], boxes_B4[own])
        if not (common / (area_B[i] + area_B[own] - common)).double().gt(threshold).any():
            kept.append(i)
    return kept[:limit]
