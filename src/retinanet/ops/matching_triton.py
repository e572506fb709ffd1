"""Matching of anchors and ground-truth boxes in Triton, for CUDA tensors.

One program matches a tile of anchors of one image: it compares the tile with one box after another and writes the
result. With low-quality matches, a first kernel computes the highest IoU of each box. One copy packs the targets. So
there are two launches, or three with low-quality matches, and the CPU never waits for the GPU.

The result equals that of native/matching.c bit for bit. Every float operation and its order are those of the C form.
Two defaults of Triton would change the last bit of an IoU and are not used: an addition fused with a multiplication
(`enable_fp_fusion`), and a division that is not correctly rounded (`/` instead of `div_rn`).

Shape suffixes: N batch, A anchors, G boxes of an image after padding.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import torch
import triton
import triton.language as tl

from retinanet.ops.matching_torch import match_torch
from retinanet.types import AnchorTargets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.types import Target

TILE: Final = 512
WARPS: Final = 4
HIGHEST_TILE: Final = 2048
HIGHEST_WARPS: Final = 8


@triton.jit
def _load_boxes(boxes, at, mask):  # type: ignore[no-untyped-def]
    """Return the coordinates and the area of boxes. A side is 0 for an inverted box, and NaN for NaN."""
    x1 = tl.load(boxes + 4 * at, mask=mask, other=0.0)
    y1 = tl.load(boxes + 4 * at + 1, mask=mask, other=0.0)
    x2 = tl.load(boxes + 4 * at + 2, mask=mask, other=0.0)
    y2 = tl.load(boxes + 4 * at + 3, mask=mask, other=0.0)
    width = x2 - x1
    height = y2 - y1
    return x1, y1, x2, y2, tl.where(width < 0, 0.0, width) * tl.where(height < 0, 0.0, height)


@triton.jit
def _compare(x1, y1, x2, y2, area, box_x1, box_y1, box_x2, box_y2, box_area):  # type: ignore[no-untyped-def]
    """Return the common area and the IoU of anchors with a box. The IoU is NaN if a coordinate is NaN."""
    width = tl.where(x2 < box_x2, x2, box_x2) - tl.where(x1 > box_x1, x1, box_x1)
    height = tl.where(y2 < box_y2, y2, box_y2) - tl.where(y1 > box_y1, y1, box_y1)
    common = tl.where(width > 0, width, 0.0) * tl.where(height > 0, height, 0.0)
    return common, tl.math.div_rn(common, area + box_area - common)


@triton.jit  # type: ignore[untyped-decorator]
def _highest_kernel(anchors, boxes, highest, A, TILE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Compute the highest IoU of one box of one image with any anchor, or NaN if the box overlaps no anchor."""
    row = tl.program_id(0).to(tl.int64)
    box_x1, box_y1, box_x2, box_y2, box_area = _load_boxes(boxes, row, True)
    best = tl.zeros((TILE,), tl.float32)
    for first in range(0, A, TILE):
        a = first + tl.arange(0, TILE)
        x1, y1, x2, y2, area = _load_boxes(anchors, a, a < A)
        _, iou = _compare(x1, y1, x2, y2, area, box_x1, box_y1, box_x2, box_y2, box_area)
        best = tl.where(iou > best, iou, best)
    most = tl.max(best, axis=0)
    tl.store(highest + row, tl.where(most > 0, most, float("nan")))


@triton.jit  # type: ignore[untyped-decorator]
def _match_kernel(  # type: ignore[no-untyped-def]
    anchors,
    boxes,
    labels,
    crowd,
    highest,
    positive,
    ignored,
    out_labels,
    out_boxes,
    matched,
    A,
    G,
    tiles,
    positive_iou,
    negative_iou,
    LOW_QUALITY: tl.constexpr,
    TILE: tl.constexpr,
):
    """Match one tile of anchors of one image."""
    program = tl.program_id(0)
    image = (program // tiles).to(tl.int64)
    a = (program % tiles) * TILE + tl.arange(0, TILE)
    inside = a < A
    x1, y1, x2, y2, area = _load_boxes(anchors, a, inside)
    best = tl.zeros((TILE,), tl.float32)
    best_box = tl.zeros((TILE,), tl.int32)
    is_best = tl.zeros((TILE,), tl.int1)
    in_crowd = tl.zeros((TILE,), tl.int1)
    for g in range(0, G):
        row = image * G + g
        box_x1, box_y1, box_x2, box_y2, box_area = _load_boxes(boxes, row, True)
        is_crowd = tl.load(crowd + row) != 0
        # NaN equals nothing and exceeds nothing: a crowd region has no IoU, and only a crowd region covers anchors.
        object_area = tl.where(is_crowd, float("nan"), box_area)
        share = tl.where(is_crowd & (box_area >= 0), positive_iou, float("nan"))
        common, iou = _compare(x1, y1, x2, y2, area, box_x1, box_y1, box_x2, box_y2, object_area)
        in_crowd = in_crowd | ((common > 0) & (common >= share * area))
        if LOW_QUALITY:
            is_best = is_best | (iou == tl.load(highest + row))
        best_box = tl.where(iou > best, g, best_box)
        best = tl.where(iou > best, iou, best)
    own = ((best >= positive_iou) | is_best) & (best > 0) & inside
    row = image * G + best_box
    place = image * A + a
    tl.store(positive + place, own.to(tl.uint8), mask=inside)
    tl.store(ignored + place, (((best >= negative_iou) | in_crowd) & (own == 0)).to(tl.uint8), mask=inside)
    tl.store(out_labels + place, tl.load(labels + row, mask=own, other=0), mask=inside)
    tl.store(matched + place, tl.where(own, best_box, 0).to(tl.int64), mask=inside)
    for k in tl.static_range(4):
        tl.store(out_boxes + 4 * place + k, tl.load(boxes + 4 * row + k, mask=own, other=0.0), mask=inside)


def match_triton(
    anchors_A4: Tensor,
    targets: Sequence[Target],
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality_matches: bool,
) -> AnchorTargets:
    """Match in Triton. Requires float32 anchors and CUDA tensors.

    Arguments and result are those of `retinanet.ops.matching.match`.

    Raises:
        ValueError: 2^29 or more anchors, or 2^31 or more tiles or boxes in a batch.
    """
    N, A = len(targets), len(anchors_A4)
    rule = {"positive_iou": float(positive_iou), "negative_iou": float(negative_iou)}
    if A == 0:
        return match_torch(anchors_A4, targets, **rule, low_quality_matches=low_quality_matches)
    anchors_A4 = anchors_A4.detach().contiguous()
    G = max(1, *(len(target.boxes_G4) for target in targets))
    tiles = triton.cdiv(A, TILE)
    if A >= 2**29 or N * max(tiles, G) >= 2**31:
        raise ValueError(f"expected fewer than 2^29 anchors and 2^31 boxes, found {A} anchors and {N} x {G} boxes")
    boxes_NG4, labels_NG, crowd_NG = _packed(anchors_A4, targets, G)
    positive_NA = anchors_A4.new_empty((N, A), dtype=torch.bool)
    ignored_NA = torch.empty_like(positive_NA)
    labels_NA = anchors_A4.new_empty((N, A), dtype=torch.int64)
    matched_NA = torch.empty_like(labels_NA)
    boxes_NA4 = anchors_A4.new_empty((N, A, 4))
    highest_NG = anchors_A4.new_empty((N, G) if low_quality_matches else 0)
    device = torch.cuda.device(anchors_A4.device) if anchors_A4.is_cuda else contextlib.nullcontext()
    with device:
        if low_quality_matches:
            _highest_kernel[(N * G,)](
                *(anchors_A4, boxes_NG4, highest_NG, A),
                TILE=HIGHEST_TILE,
                num_warps=HIGHEST_WARPS,
                enable_fp_fusion=False,
            )
        _match_kernel[(N * tiles,)](
            *(anchors_A4, boxes_NG4, labels_NG, crowd_NG, highest_NG),
            *(positive_NA.view(torch.uint8), ignored_NA.view(torch.uint8), labels_NA, boxes_NA4, matched_NA),
            *(A, G, tiles),
            **rule,
            LOW_QUALITY=low_quality_matches,
            TILE=TILE,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )
    return AnchorTargets(
        positive_NA=positive_NA, ignored_NA=ignored_NA, labels_NA=labels_NA, boxes_NA4=boxes_NA4, matched_NA=matched_NA
    )


def _packed(anchors_A4: Tensor, targets: Sequence[Target], G: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes (float32), labels (int64) and crowd flags (uint8) of all images, padded to G boxes, in one copy.

    The padding repeats one byte of the anchors, which needs no launch. Four equal coordinates are a box without area,
    which overlaps nothing, also for NaN. So the label and the crowd flag of the padding have no effect.
    """
    N = len(targets)
    padding = anchors_A4.view(-1).view(torch.uint8)[:1]
    columns = (
        [target.boxes_G4.detach().to(torch.float32) for target in targets],
        [target.labels_G.to(torch.int64) for target in targets],
        [target.crowd_G.to(torch.bool) for target in targets],
    )
    pieces = []
    for column, size in zip(columns, (16, 8, 1), strict=True):
        for part in column:
            pieces += [part.contiguous().view(-1).view(torch.uint8), padding.expand(size * (G - len(part)))]
    packed = torch.cat(pieces)
    boxes, labels, crowd = packed[: 16 * N * G], packed[16 * N * G : 24 * N * G], packed[24 * N * G :]
    return boxes.view(torch.float32), labels.view(torch.int64), crowd
