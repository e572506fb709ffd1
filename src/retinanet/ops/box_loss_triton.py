"""The box loss of a batch in Triton: a flat grid over images and blocks of anchors.

Each program writes one partial sum. A second reduction adds the partial sums, so every run gives an identical sum.

Shape suffixes: N batch, A anchors, B blocks of an image.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import torch
import triton
import triton.language as tl

from retinanet.ops.focal_terms import empty_gradient
from retinanet.types import MAX_LOG_SCALE

if TYPE_CHECKING:
    from torch import Tensor

BLOCK: Final = 512
WARPS: Final = 4


@triton.jit
def _smooth_l1(difference, beta):  # type: ignore[no-untyped-def]
    """Return the smooth L1 loss of a difference of offsets, and its derivative. Beta 0 gives L1."""
    size = tl.abs(difference)
    sign = tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, 0.0))
    is_small = size < beta
    slope = difference / tl.where(is_small, beta, 1.0)
    return tl.where(is_small, 0.5 * difference * slope, size - 0.5 * beta), tl.where(is_small, slope, sign)


@triton.jit
def _side(low, high, box_low, box_high):  # type: ignore[no-untyped-def]
    """Return the common side and the hull's side of a predicted and a true box, and their derivatives by low and high.

    The derivative is a half where two coordinates are equal, as in torch.
    """
    low_inside = tl.where(low > box_low, 1.0, tl.where(low == box_low, 0.5, 0.0))
    high_inside = tl.where(high < box_high, 1.0, tl.where(high == box_high, 0.5, 0.0))
    common = tl.minimum(high, box_high) - tl.maximum(low, box_low)
    overlaps = tl.where(common >= 0, 1.0, 0.0)
    hull = tl.maximum(high, box_high) - tl.minimum(low, box_low)
    by_low, by_high = -low_inside * overlaps, high_inside * overlaps
    return common * overlaps, hull, by_low, by_high, low_inside - 1.0, 1.0 - high_inside


@triton.jit  # type: ignore[untyped-decorator]
def _box_kernel(  # type: ignore[no-untyped-def] # noqa: PLR0915
    deltas,
    boxes,
    anchors,
    positive,
    scale,
    gradient,
    partial,
    anchors_per_image,
    blocks_per_image,
    beta,
    max_log_scale,
    GIOU: tl.constexpr,
    WITH_GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute one block of anchors of one image. Unused anchors have the box (0, 0, 1, 1), which avoids 0 / 0."""
    program = tl.program_id(0)
    image = (program // blocks_per_image).to(tl.int64)
    within = (program % blocks_per_image) * BLOCK + tl.arange(0, BLOCK)
    inside = within < anchors_per_image
    row = (image * anchors_per_image + within) * 4
    own = tl.load(positive + row // 4, mask=inside, other=0) != 0
    dx = tl.load(deltas + row, mask=own, other=0.0).to(tl.float32)
    dy = tl.load(deltas + row + 1, mask=own, other=0.0).to(tl.float32)
    dw = tl.load(deltas + row + 2, mask=own, other=0.0).to(tl.float32)
    dh = tl.load(deltas + row + 3, mask=own, other=0.0).to(tl.float32)
    bx1 = tl.load(boxes + row, mask=own, other=0.0)
    by1 = tl.load(boxes + row + 1, mask=own, other=0.0)
    bx2 = tl.load(boxes + row + 2, mask=own, other=1.0)
    by2 = tl.load(boxes + row + 3, mask=own, other=1.0)
    ax1 = tl.load(anchors + within * 4, mask=own, other=0.0)
    ay1 = tl.load(anchors + within * 4 + 1, mask=own, other=0.0)
    ax2 = tl.load(anchors + within * 4 + 2, mask=own, other=1.0)
    ay2 = tl.load(anchors + within * 4 + 3, mask=own, other=1.0)
    w, h = ax2 - ax1, ay2 - ay1
    if GIOU:
        half_w, half_h = w * tl.exp(tl.minimum(dw, max_log_scale)) / 2, h * tl.exp(tl.minimum(dh, max_log_scale)) / 2
        cx, cy = (ax1 + ax2) / 2 + dx * w, (ay1 + ay2) / 2 + dy * h
        common_w, hull_w, cw_x1, cw_x2, hw_x1, hw_x2 = _side(cx - half_w, cx + half_w, bx1, bx2)
        common_h, hull_h, ch_y1, ch_y2, hh_y1, hh_y2 = _side(cy - half_h, cy + half_h, by1, by2)
        common, hull = common_w * common_h, hull_w * hull_h
        union = 4 * half_w * half_h + (bx2 - bx1) * (by2 - by1) - common
        union, hull = tl.maximum(union, 1.175494351e-38), tl.maximum(hull, 1.175494351e-38)
        loss = 1 - (common / union - (hull - union) / hull)
        # The loss is 2 - common / union - union / hull.
        by_union = common / (union * union) - 1 / hull
        by_common = -1 / union - by_union  # a larger common area makes the union smaller
        by_hull = union / (hull * hull)
        pull_x1 = by_common * cw_x1 * common_h + by_hull * hw_x1 * hull_h - by_union * 2 * half_h
        pull_x2 = by_common * cw_x2 * common_h + by_hull * hw_x2 * hull_h + by_union * 2 * half_h
        pull_y1 = by_common * ch_y1 * common_w + by_hull * hh_y1 * hull_w - by_union * 2 * half_w
        pull_y2 = by_common * ch_y2 * common_w + by_hull * hh_y2 * hull_w + by_union * 2 * half_w
        slope_x, slope_y = (pull_x1 + pull_x2) * w, (pull_y1 + pull_y2) * h
        slope_w = tl.where(dw <= max_log_scale, (pull_x2 - pull_x1) * half_w, 0.0)
        slope_h = tl.where(dh <= max_log_scale, (pull_y2 - pull_y1) * half_h, 0.0)
    else:
        loss_x, slope_x = _smooth_l1(dx - (bx1 + bx2 - ax1 - ax2) / 2 / w, beta)
        loss_y, slope_y = _smooth_l1(dy - (by1 + by2 - ay1 - ay2) / 2 / h, beta)
        loss_w, slope_w = _smooth_l1(dw - tl.log((bx2 - bx1) / w), beta)
        loss_h, slope_h = _smooth_l1(dh - tl.log((by2 - by1) / h), beta)
        loss = loss_x + loss_y + loss_w + loss_h
    factor = tl.load(scale + image)
    tl.store(partial + program, tl.sum(tl.where(own, loss, 0.0), axis=0) * factor)
    if WITH_GRADIENT:
        dtype = gradient.dtype.element_ty
        tl.store(gradient + row, tl.where(own, slope_x * factor, 0.0).to(dtype), mask=inside)
        tl.store(gradient + row + 1, tl.where(own, slope_y * factor, 0.0).to(dtype), mask=inside)
        tl.store(gradient + row + 2, tl.where(own, slope_w * factor, 0.0).to(dtype), mask=inside)
        tl.store(gradient + row + 3, tl.where(own, slope_h * factor, 0.0).to(dtype), mask=inside)


def box_loss_triton(
    deltas_NA4: Tensor,
    boxes_NA4: Tensor,
    anchors_A4: Tensor,
    positive_NA: Tensor,
    scale_N: Tensor,
    *,
    giou: bool,
    beta: float,
    with_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss of each image and its gradient, both multiplied by `scale_N`. All tensors are contiguous.

    The tensors are those of `box_loss.box_loss`. The gradient has the type of the offsets, but float32 for float16.

    Args:
        giou: whether the loss is 1 - GIoU of the boxes, else smooth L1 of the offsets.
        beta: beta of smooth L1; 0 gives L1.
        with_gradient: whether the gradient is computed.

    Raises:
        TypeError: a tensor has another type or is on another device than the offsets.
        ValueError: a tensor has another shape.
    """
    N, A, _ = deltas_NA4.shape
    for name, tensor, dtype, shape in (
        ("deltas_NA4", deltas_NA4, deltas_NA4.dtype, (N, A, 4)),
        ("boxes_NA4", boxes_NA4, torch.float32, (N, A, 4)),
        ("anchors_A4", anchors_A4, torch.float32, (A, 4)),
        ("positive_NA", positive_NA, torch.bool, (N, A)),
        ("scale_N", scale_N, torch.float32, (N,)),
    ):
        if tensor.dtype != dtype or tensor.device != deltas_NA4.device:
            raise TypeError(f"{name}: expected {dtype} on {deltas_NA4.device}, found {tensor.dtype} on {tensor.device}")
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: expected shape {shape}, found {tuple(tensor.shape)}")
    gradient_NA4 = empty_gradient(deltas_NA4) if with_gradient else None
    if not deltas_NA4.numel():
        return scale_N.new_zeros(N), gradient_NA4
    blocks = triton.cdiv(A, BLOCK)
    partial_NB = scale_N.new_empty((N, blocks))
    with torch.cuda.device(deltas_NA4.device) if deltas_NA4.is_cuda else contextlib.nullcontext():
        _box_kernel[(N * blocks,)](
            deltas_NA4,
            boxes_NA4,
            anchors_A4,
            positive_NA.view(torch.uint8),
            scale_N,
            gradient_NA4 if gradient_NA4 is not None else partial_NB,
            partial_NB,
            A,
            blocks,
            float(beta),
            MAX_LOG_SCALE,
            GIOU=giou,
            WITH_GRADIENT=with_gradient,
            BLOCK=BLOCK,
            num_warps=WARPS,
        )
    return partial_NB.sum(dim=1), gradient_NA4
