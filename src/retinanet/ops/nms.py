"""Non-maximum suppression (NMS) within each class: in C for CPU tensors, in torch for all others.

Both forms return equal results. Shape suffixes: B boxes, F first boxes by falling score, P pairs of boxes.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final

import torch
import torchvision

from retinanet.ops.native_library import address, available, buffer, call

if TYPE_CHECKING:
    from torch import Tensor

_PAIRS_PER_CALL: Final = 500
"""Number of box pairs whose comparison takes the time of one call of torchvision's NMS for a few boxes."""


def nms(
    boxes_B4: Tensor, scores_B: Tensor, labels_B: Tensor | None = None, *, threshold: float, limit: int | None = None
) -> Tensor:
    """Return the indices of the kept boxes by falling score, int64.

    A box is dropped if its IoU with a kept box of its class and of a higher score is above `threshold`. Of equal
    scores, the first counts as the higher one. Every IoU is computed from the given coordinates. (torchvision's
    `batched_nms` shifts the boxes of each class in float32. The rounding of the shifted boxes changes decisions close
    to the threshold.)

    Args:
        boxes_B4: boxes, xyxy, any unit.
        scores_B: scores; NaN counts as the highest score, as in torch's sort.
        labels_B: class ids, any integers. None: all boxes have one class.
        threshold: IoU, 0 or more, above which the box with the lower score is dropped.
        limit: largest number of kept boxes. None: no limit.

    Raises:
        TypeError: the scores or labels are on another device (C form only).
        ValueError: the scores or labels have another shape (C form only).
    """
    form = nms_native if supports_nms_native(boxes_B4, scores_B) else nms_torch
    return form(boxes_B4, scores_B, labels_B, threshold=threshold, limit=limit)


def nms_torch(
    boxes_B4: Tensor, scores_B: Tensor, labels_B: Tensor | None = None, *, threshold: float, limit: int | None = None
) -> Tensor:
    """Return the indices of the kept boxes in torch, on any device. Arguments and results are those of `nms`.

    Boxes with lower scores never change which boxes with higher scores are kept. So the function suppresses only the
    first boxes by score, and makes this prefix four times longer until `limit` boxes are kept.
    """
    if boxes_B4.dtype in {torch.float16, torch.bfloat16}:
        boxes_B4 = boxes_B4.float()
    order_B = scores_B.argsort(descending=True, stable=True)
    length = len(order_B) if limit is None else 4 * limit
    while True:
        head_F = order_B[:length]
        labels_F = None if labels_B is None else labels_B[head_F]
        kept = head_F[_class_by_class(boxes_B4[head_F], scores_B[head_F], labels_F, threshold)]
        if len(head_F) == len(order_B) or (limit is not None and len(kept) >= limit):
            return kept[:limit]
        length *= 4


def supports_nms_native(boxes_B4: Tensor, scores_B: Tensor) -> bool:
    """Return whether `nms_native` supports these inputs.

    It supports fewer than 2^31 boxes and scores in float32 on the CPU. It requires the C library.
    """
    float32 = boxes_B4.dtype == scores_B.dtype == torch.float32
    return boxes_B4.device.type == "cpu" and float32 and len(boxes_B4) < 2**31 and available()


def nms_native(
    boxes_B4: Tensor, scores_B: Tensor, labels_B: Tensor | None = None, *, threshold: float, limit: int | None = None
) -> Tensor:
    """Return the indices of the kept boxes in C. Arguments and results are those of `nms`.

    The inputs must fulfil `supports_nms_native`.
    """
    B = len(boxes_B4)
    limit = B if limit is None else min(limit, B)
    boxes_B4, scores_B = boxes_B4.detach().contiguous(), scores_B.detach().contiguous()
    labels_B = None if labels_B is None else labels_B.to(torch.int64).contiguous()
    keep = buffer(limit, dtype=torch.int64)
    found = ctypes.c_int64()
    call(
        "rn_nms",
        address(boxes_B4, name="boxes", dtype=torch.float32, shape=(B, 4)),
        address(scores_B, name="scores", dtype=torch.float32, shape=(B,)),
        0 if labels_B is None else address(labels_B, name="labels", dtype=torch.int64, shape=(B,)),
        B,
        threshold,
        limit,
        address(keep, name="keep", dtype=torch.int64, shape=(limit,)),
        ctypes.addressof(found),
    )
    return keep[: found.value]


def _class_by_class(boxes_F4: Tensor, scores_F: Tensor, labels_F: Tensor | None, threshold: float) -> Tensor:
    """Return which boxes are kept, bool. The boxes are sorted by falling score; each class is suppressed alone."""
    keep_F = torch.zeros(len(boxes_F4), dtype=torch.bool, device=boxes_F4.device)
    if labels_F is None:
        keep_F[torchvision.ops.nms(boxes_F4, scores_F, threshold)] = True
        return keep_F
    sorted_F, order_F = labels_F.sort(stable=True)
    _, counts = torch.unique_consecutive(sorted_F, return_counts=True)
    if int((counts * (counts - 1)).sum()) <= 2 * _PAIRS_PER_CALL * len(counts):
        keep_F[order_F[_by_pairs(boxes_F4[order_F], counts, threshold)]] = True
        return keep_F
    for own in torch.split(order_F, counts.tolist()):
        keep_F[own[torchvision.ops.nms(boxes_F4[own], scores_F[own], threshold)]] = True
    return keep_F


def _by_pairs(boxes_F4: Tensor, counts: Tensor, threshold: float) -> Tensor:
    """Return which boxes are kept, bool. All pairs of boxes of a class are compared at once.

    The boxes are grouped by class and sorted by falling score within each class. `counts` holds the number of boxes of
    each class. The float operations and their order are those of `torchvision.ops.nms`, so every IoU is equal bit for
    bit.
    """
    F = len(boxes_F4)
    place_F = torch.arange(F, device=boxes_F4.device)
    rank_F = place_F - torch.repeat_interleave(counts.cumsum(0) - counts, counts)  # 0 is the highest score of a class
    worse_P = torch.repeat_interleave(place_F, rank_F)
    before_F = rank_F.cumsum(0) - rank_F  # number of pairs of all earlier boxes
    better_P = torch.arange(len(worse_P), device=boxes_F4.device) - (before_F - place_F + rank_F)[worse_P]
    x1_F, y1_F, x2_F, y2_F = boxes_F4.unbind(1)
    area_F = (x2_F - x1_F) * (y2_F - y1_F)
    width_P = torch.minimum(x2_F[better_P], x2_F[worse_P]) - torch.maximum(x1_F[better_P], x1_F[worse_P])
    height_P = torch.minimum(y2_F[better_P], y2_F[worse_P]) - torch.maximum(y1_F[better_P], y1_F[worse_P])
    common_P = width_P.clamp(min=0) * height_P.clamp(min=0)
    over_P = (common_P / (area_F[better_P] + area_F[worse_P] - common_P)).double() > threshold
    keep = [True] * F
    for better, worse in zip(better_P[over_P].tolist(), worse_P[over_P].tolist(), strict=True):
        if keep[better]:  # final, because all pairs of a box precede the pairs of boxes with lower scores
            keep[worse] = False
    return torch.tensor(keep, dtype=torch.bool, device=boxes_F4.device)
