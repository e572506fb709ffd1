"""Matching, ATSS, task-aligned assignment, candidates and NMS in short, slow code.

Tests compare the C and the torch forms with these functions.

The float32 operations are in the order of the formulas, on whole matrices.
Shape suffixes: A anchors, G ground-truth boxes, L anchors of a level, K classes.
"""

from __future__ import annotations

import math

import torch

from retinanet.boxes import area, intersection, iou
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
    return _stacked(columns)


def atss(anchors_A4, targets, config, *, anchors_per_level, per_position):
    """Assign by ATSS, one box after another. `per_position` is the number of anchors at each position of a level."""
    columns = []
    for target in targets:
        boxes_G4, anchors_32_A4 = target.boxes_G4.float(), anchors_A4.float()
        centres_A2 = ((anchors_32_A4[:, :2] + anchors_32_A4[:, 2:]) * 32).round() / 64
        candidates = [
            _closest(centres_A2, boxes_G4[g], anchors_per_level, per_position, config.atss_candidates)
            for g in range(len(boxes_G4))
        ]
        iou_AG = torch.where(target.crowd_G, 0.0, iou(anchors_32_A4[:, None], boxes_G4[None]))
        positive_AG = torch.zeros_like(iou_AG, dtype=torch.bool)
        for g, chosen in enumerate(candidates):
            x1, y1, x2, y2 = boxes_G4[g].tolist()
            steps = [round(value * 65536) for value in iou_AG[chosen, g].tolist()]
            for a, step in zip(chosen, steps, strict=True):
                x, y = centres_A2[a].tolist()
                inside = x1 < x < x2 and y1 < y < y2
                positive_AG[a, g] = inside and step >= _mean_plus_deviation(steps) and bool(iou_AG[a, g] > 0)
        owner = _owners(iou_AG, positive_AG)
        if config.low_quality_matches:
            _add_unreached(owner, iou_AG, candidates)
        columns.append(_column(owner, anchors_A4, target, config.positive_iou))
    return _stacked(columns)


def task_aligned(anchors_A4, logits_NAK, predicted_NA4, targets, config):
    """Assign the 13 anchors of the largest metric, one box after another."""
    columns = []
    for n, target in enumerate(targets):
        iou_AG = torch.where(target.crowd_G, 0.0, iou(predicted_NA4[n][:, None], target.boxes_G4.float()[None]))
        centres_A2 = (anchors_A4[:, :2] + anchors_A4[:, 2:]) / 2
        positive_AG = torch.zeros_like(iou_AG, dtype=torch.bool)
        closest = []
        for g, label in enumerate(target.labels_G.tolist()):
            u_A = iou_AG[:, g]
            metrics = (logits_NAK[n, :, label].double().sigmoid().float() * (u_A * u_A * u_A) ** 2).tolist()
            x1, y1, x2, y2 = target.boxes_G4[g].tolist()
            allowed = [a for a, (x, y) in enumerate(centres_A2.tolist()) if x1 < x < x2 and y1 < y < y2]
            for a in sorted([a for a in allowed if metrics[a] > 0], key=lambda a: (-metrics[a], a))[:13]:
                positive_AG[a, g] = True
            closest.append(sorted(range(len(u_A)), key=lambda a: (-float(u_A[a]), a))[:13])
        owner = _owners(iou_AG, positive_AG)
        if config.low_quality_matches:
            _add_unreached(owner, iou_AG, closest)
        columns.append(_column(owner, anchors_A4, target, config.positive_iou))
    return _stacked(columns)


def _closest(centres_A2, box_4, anchors_per_level, per_position, count):
    """Return the candidates: the anchors at the positions that are closest to the centre of the box, by level."""
    chosen, first = [], 0
    for L, C in zip(anchors_per_level, per_position, strict=True):
        squared_P2 = (centres_A2[first : first + L : C] - (box_4[:2] + box_4[2:]) / 2).double() ** 2
        distances = [math.inf if math.isnan(d) else d for d in squared_P2.sum(1).float().tolist()]
        closest = sorted(range(L // C), key=lambda p: (distances[p], p))[:count]
        chosen += [first + p * C + c for p in closest for c in range(C)]
        first += L
    return chosen


def _mean_plus_deviation(steps):
    J, total, squares = len(steps), sum(steps), sum(step * step for step in steps)
    return total / J + math.sqrt((J * squares - total * total) / max(1, J * (J - 1)))


def _owners(iou_AG, positive_AG):
    """Return the box of each anchor by index: the first box of highest IoU of those for which it is positive."""
    owner = {}
    for a in torch.nonzero(positive_AG.any(1)).flatten().tolist():
        boxes = torch.nonzero(positive_AG[a]).flatten().tolist()
        owner[a] = max(boxes, key=lambda g: (float(iou_AG[a, g]), -g))
    return owner


def _add_unreached(owner, iou_AG, candidates):
    """Add the best free candidate of each box that owns no anchor. All boxes choose before one of them gets its."""
    wishes = {}
    for g, chosen in enumerate(candidates):
        free = [a for a in chosen if a not in owner and iou_AG[a, g] > 0]
        if free and g not in owner.values():
            wishes.setdefault(max(free, key=lambda a: float(iou_AG[a, g])), []).append(g)
    for a, boxes in wishes.items():
        owner[a] = max(boxes, key=lambda g: (float(iou_AG[a, g]), -g))


def _column(owner, anchors_A4, target, crowd_share):
    """Return the targets of an image: positive, ignored, labels, boxes and matched boxes of all anchors."""
    positive_A = torch.zeros(len(anchors_A4), dtype=torch.bool)
    labels_A, matched_A = (torch.zeros(len(anchors_A4), dtype=torch.int64) for _ in range(2))
    boxes_A4 = torch.zeros_like(anchors_A4)
    for a, g in owner.items():
        positive_A[a], labels_A[a], matched_A[a] = True, target.labels_G[g], g
        boxes_A4[a] = target.boxes_G4[g].to(anchors_A4.dtype)
    common_AG = intersection(anchors_A4[:, None], target.boxes_G4.to(anchors_A4.dtype)[None])
    in_crowd_AG = (common_AG >= crowd_share * area(anchors_A4)[:, None]) & (common_AG > 0) & target.crowd_G
    return positive_A, in_crowd_AG.any(1) & ~positive_A, labels_A, boxes_A4, matched_A


def _stacked(columns):
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
