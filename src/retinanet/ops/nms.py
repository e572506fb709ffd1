"""Non-maximum suppression (NMS) within each class: in C for CPU tensors, in torch for all others.

Both forms return equal results. Shape suffixes: B boxes, F first boxes by falling score, P pairs of boxes.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final

import torch
import torchvision

from retinanet.ops.native_library import address, available, call

if TYPE_CHECKING:
    from torch import Tensor

_PAIRS_PER_CALL: Final = 500
"""Number of pairs of boxes that are compared at once in the time of one call of torchvision's NMS for a few boxes."""


def nms(
    boxes_B4: Tensor, scores_B: Tensor, labels_B: Tensor | None = None, *, threshold: float, limit: int | None = None
) -> Tensor:
    """Return the indices of the kept boxes by falling score, int64.

    A box is dropped if its IoU with a kept box of its class and of a higher score is above `threshold`. The first of
    equal scores counts as the higher one. The boxes are compared as they are. (torchvision's `batched_nms` moves them
    apart by class in float32, whose rounding changes decisions close to the threshold. On a GPU, the torch form moves
    them in float64.)

    Args:
        boxes_B4: xyxy, in any unit.
        scores_B: NaN counts as the highest score, as in torch's sort.
        labels_B: class ids, any integers; None: all boxes are of one class.
        threshold: an IoU, 0 or more.
        limit: largest number of kept boxes; None: no limit.

    Raises:
        TypeError, ValueError: scores or labels of another shape or device (in the C form).
    """
    form = nms_native if supports_nms_native(boxes_B4, scores_B) else nms_torch
    return form(boxes_B4, scores_B, labels_B, threshold=threshold, limit=limit)


def nms_torch(
    boxes_B4: Tensor, scores_B: Tensor, labels_B: Tensor | None = None, *, threshold: float, limit: int | None = None
) -> Tensor:
    """Return the indices of the kept boxes in torch, on any device. Arguments and results as in `nms`.

    Boxes with lower scores never change which boxes with higher scores are kept. So the first boxes by score are
    suppressed alone, and more of them are taken until `limit` boxes are kept.
    """
    if boxes_B4.dtype in {torch.float16, torch.bfloat16}:
        boxes_B4 = boxes_B4.float()
    order_B = scores_B.argsort(descending=True, stable=True)
    suppress = _apart if boxes_B4.is_cuda else _class_by_class
    length = len(order_B) if limit is None else 4 * limit
    while True:
        head_F = order_B[:length]
        keep_F = suppress(boxes_B4[head_F], scores_B[head_F], None if labels_B is None else labels_B[head_F], threshold)
        kept = head_F[keep_F]
        if len(head_F) == len(order_B) or (limit is not None and len(kept) >= limit):
            return kept[:limit]
        length *= 4


def supports_nms_native(boxes_B4: Tensor, scores_B: Tensor) -> bool:
    """Return whether `nms_native` takes these inputs: fewer than 2^31 float32 boxes on the CPU, and the library."""
    float32 = boxes_B4.dtype == scores_B.dtype == torch.float32
    return boxes_B4.device.type == "cpu" and float32 and len(boxes_B4) < 2**31 and available()


def nms_native(
    boxes_B4: Tensor, scores_B: Tensor, labels_B: Tensor | None = None, *, threshold: float, limit: int | None = None
) -> Tensor:
    """Return the indices of the kept boxes in C. Requires `supports_nms_native`. Arguments and results as in `nms`."""
    B = len(boxes_B4)
    limit = B if limit is None else min(limit, B)
    boxes_B4, scores_B = boxes_B4.detach().contiguous(), scores_B.detach().contiguous()
    labels_B = None if labels_B is None else labels_B.to(torch.int64).contiguous()
    keep = torch.empty(limit, dtype=torch.int64)
    found = ctypes.c_int64()
    call(
        "rn_nms",
        address(boxes_B4, name="boxes", dtype=torch.float32, shape=(B, 4)),
        address(scores_B, name="scores", dtype=torch.float32, shape=(B,)),
        0 if labels_B is None else address(labels_B, name="labels", dtype=torch.int64, shape=(B,)),
        B,
        threshold,
        limit,
        keep.data_ptr(),
        ctypes.addressof(found),
    )
    return keep[: found.value]


def _class_by_class(boxes_F4: Tensor, scores_F: Tensor, labels_F: Tensor | None, threshold: float) -> Tensor:
    """Return which boxes are kept, bool, for boxes by falling score."""
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
    """Return which boxes are kept, bool, for boxes grouped by class and sorted by falling score within each class.

    `counts` is the number of boxes of each class. All pairs of a class are compared at once, with the operations of
    `torchvision.ops.nms` in its order, so that every IoU is equal bit for bit.
    """
    F = len(boxes_F4)
    place_F = torch.arange(F, device=boxes_F4.device)
    rank_F = place_F - torch.repeat_interleave(counts.cumsum(0) - counts, counts)  # 0: the highest score of its class
    worse_P = torch.repeat_interleave(place_F, rank_F)
    before_F = rank_F.cumsum(0) - rank_F  # number of pairs of the boxes before
    better_P = torch.arange(len(worse_P), device=boxes_F4.device) - (before_F - place_F + rank_F)[worse_P]
    x1_F, y1_F, x2_F, y2_F = boxes_F4.unbind(1)
    area_F = (x2_F - x1_F) * (y2_F - y1_F)
    width_P = torch.minimum(x2_F[better_P], x2_F[worse_P]) - torch.maximum(x1_F[better_P], x1_F[worse_P])
    height_P = torch.minimum(y2_F[better_P], y2_F[worse_P]) - torch.maximum(y1_F[better_P], y1_F[worse_P])
    common_P = width_P.clamp(min=0) * height_P.clamp(min=0)
    over_P = (common_P / (area_F[better_P] + area_F[worse_P] - common_P)).double() > threshold
    keep = [True] * F
    for better, worse in zip(better_P[over_P].tolist(), worse_P[over_P].tolist(), strict=True):
        if keep[better]:  # decided: its own pairs come before
            keep[worse] = False
    return torch.tensor(keep, dtype=torch.bool, device=boxes_F4.device)


def _apart(boxes_F4: Tensor, scores_F: Tensor, labels_F: Tensor | None, threshold: float) -> Tensor:
    """Return which boxes are kept, bool, in one call for all classes, whose boxes are moved apart in float64."""
    if labels_F is not None and len(boxes_F4):
        far = 2 * boxes_F4.double().nan_to_num(nan=0, posinf=0, neginf=0).abs().max() + 1
        boxes_F4 = boxes_F4.double() + (labels_F.double() * far)[:, None]
    keep_F = torch.zeros(len(boxes_F4), dtype=torch.bool, device=boxes_F4.device)
    keep_F[torchvision.ops.nms(boxes_F4, scores_F.to(boxes_F4.dtype), threshold)] = True
    return keep_F
