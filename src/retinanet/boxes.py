"""Functions on boxes: convert, compare, clip, encode and decode.

Every box is xyxy in pixels with x2 > x1 and y2 > y1; a box covers (x2 - x1) x (y2 - y1) pixels, without a "+1".
Shape suffixes: B boxes, P pairs, A anchors, G ground-truth boxes, D detections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from retinanet.types import MAX_LOG_SCALE

if TYPE_CHECKING:
    from torch import Tensor


def xyxy_to_xywh(boxes_B4: Tensor) -> Tensor:
    """Return xyxy boxes as (left, top, width, height), the order of COCO."""
    return torch.cat([boxes_B4[..., :2], boxes_B4[..., 2:] - boxes_B4[..., :2]], dim=-1)


def xywh_to_xyxy(boxes_B4: Tensor) -> Tensor:
    """Return boxes (left, top, width, height), the order of COCO, as xyxy."""
    return torch.cat([boxes_B4[..., :2], boxes_B4[..., :2] + boxes_B4[..., 2:]], dim=-1)


def area(boxes_B4: Tensor) -> Tensor:
    """Return the area of each box in square pixels, (..., 4) -> (...); 0 for an inverted box."""
    low_B2, high_B2 = boxes_B4.chunk(2, dim=-1)
    return _product((high_B2 - low_B2).clamp(min=0))


def intersection(first_B4: Tensor, second_B4: Tensor) -> Tensor:
    """Return the common area of each pair in square pixels, broadcast over the leading dimensions."""
    (low_B2, high_B2), (other_low_B2, other_high_B2) = first_B4.chunk(2, dim=-1), second_B4.chunk(2, dim=-1)
    return _product((torch.minimum(high_B2, other_high_B2) - torch.maximum(low_B2, other_low_B2)).clamp(min=0))


def iou(first_B4: Tensor, second_B4: Tensor) -> Tensor:
    """Return intersection over union of each pair, broadcast over the leading dimensions.

    `iou(a[:, None], b[None])` gives all pairs. Two boxes without area have IoU 0, never NaN.
    """
    common = intersection(first_B4, second_B4)
    union = area(first_B4) + area(second_B4) - common
    return torch.where(union > 0, common / union.where(union > 0, 1.0), 0.0)


def generalized_iou(first_P4: Tensor, second_P4: Tensor) -> Tensor:
    """Return GIoU in (-1, 1] of each pair: IoU minus the share of the hull that neither box covers.

    Source: Rezatofighi et al., arXiv 1902.09630, algorithm 1.
    """
    (low_P2, high_P2), (other_low_P2, other_high_P2) = first_P4.chunk(2, dim=-1), second_P4.chunk(2, dim=-1)
    common = _product((torch.minimum(high_P2, other_high_P2) - torch.maximum(low_P2, other_low_P2)).clamp(min=0))
    union = _product((high_P2 - low_P2).clamp(min=0)) + area(second_P4) - common
    hull = _product(torch.maximum(high_P2, other_high_P2) - torch.minimum(low_P2, other_low_P2))
    # Clamping, unlike adding an epsilon, leaves the value exact for every box with an area above 0.
    tiny = torch.finfo(union.dtype).tiny
    return common / union.clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)


def clip(boxes_B4: Tensor, *, width: float, height: float) -> Tensor:
    """Return the boxes clipped to an image of this width and height."""
    limit = boxes_B4.new_tensor([width, height, width, height])
    return torch.minimum(boxes_B4.clamp(min=0), limit)


def encode(boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
    """Return the offsets (dx, dy, dw, dh) that turn each anchor into its box.

    dx = (cx - cx_a) / w_a, dy = (cy - cy_a) / h_a, dw = log(w / w_a), dh = log(h / h_a), where
    (cx, cy) is the centre of a box and a marks the anchor (R-CNN, arXiv 1311.2524, appendix C).

    Args:
        boxes_P4: xyxy boxes with an area above 0.
        anchors_P4: xyxy anchor of each box, in the same pixels.
    """
    anchor_sides_P2 = anchors_P4[..., 2:] - anchors_P4[..., :2]
    box_sides_P2 = boxes_P4[..., 2:] - boxes_P4[..., :2]
    shift_P2 = (boxes_P4[..., :2] + boxes_P4[..., 2:] - anchors_P4[..., :2] - anchors_P4[..., 2:]) / 2
    return torch.cat([shift_P2 / anchor_sides_P2, torch.log(box_sides_P2 / anchor_sides_P2)], dim=-1)


def decode(deltas_P4: Tensor, anchors_P4: Tensor) -> Tensor:
    """Return the xyxy boxes for offsets from anchors, the inverse of `encode`.

    dw and dh are limited to at most `MAX_LOG_SCALE`.
    """
    shift_P2, log_scale_P2 = deltas_P4.chunk(2, dim=-1)
    anchor_sides_P2 = anchors_P4[..., 2:] - anchors_P4[..., :2]
    anchor_centres_P2 = (anchors_P4[..., :2] + anchors_P4[..., 2:]) / 2
    centres_P2 = anchor_centres_P2 + shift_P2 * anchor_sides_P2
    half_P2 = anchor_sides_P2 * torch.exp(log_scale_P2.clamp(max=MAX_LOG_SCALE)) / 2
    return torch.cat([centres_P2 - half_P2, centres_P2 + half_P2], dim=-1)


def _product(sides_B2: Tensor) -> Tensor:
    """Return width times height."""
    width_B, height_B = sides_B2.unbind(dim=-1)
    return width_B * height_B
