"""Matching of anchors and ground-truth boxes: in C for CPU tensors, in torch for all others.

`retinanet.matching` documents the rule and its source (Lin et al., arXiv 1708.02002, section 4). Both forms return
equal results, bit for bit.

Shape suffixes: N batch, A anchors, G ground-truth boxes of one image (in the C form: of all images), O objects (boxes
that are no crowd region), P positive anchors, T tiles of anchors, S tiles that touch a box, U anchors of a tile.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

import torch

from retinanet.boxes import area, intersection
from retinanet.ops.native_library import address, available, buffer, call
from retinanet.types import AnchorTargets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.types import Target

TILE: Final = 256
"""Number of anchors in a tile. A ground-truth box is compared only with tiles whose bounding box it touches."""
BOXES: Final = 256
"""Number of ground-truth boxes that are compared with the bounding boxes of all tiles at once."""


def match(
    anchors_A4: Tensor,
    targets: Sequence[Target],
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality_matches: bool,
) -> AnchorTargets:
    """Return whether each anchor of each image is positive, negative or ignored, and its matched ground-truth box.

    `retinanet.matching.match` documents the rule.

    Args:
        anchors_A4: anchors, xyxy, input pixels.
        targets: ground truth of each image, at least one image.
        positive_iou: smallest IoU with an object at which an anchor is positive.
        negative_iou: IoU below which an anchor is negative. An anchor between the two thresholds is ignored.
        low_quality_matches: whether the anchors with the highest IoU of each object are positive at any IoU above 0.

    Raises:
        ValueError: 2^31 or more boxes in the C form.
    """
    form = match_native if supports_match_native(anchors_A4, targets) else match_torch
    return form(
        anchors_A4,
        targets,
        positive_iou=positive_iou,
        negative_iou=negative_iou,
        low_quality_matches=low_quality_matches,
    )


def match_torch(
    anchors_A4: Tensor,
    targets: Sequence[Target],
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality_matches: bool,
) -> AnchorTargets:
    """Match in torch, on any device and in any float type. Arguments and result are those of `match`."""
    rows = [_match_image(anchors_A4, target, positive_iou, negative_iou, low_quality_matches) for target in targets]
    positive_NA, ignored_NA, matched_NA = (torch.stack(column) for column in zip(*rows, strict=True))
    labels_NA = torch.zeros_like(matched_NA)
    boxes_NA4 = anchors_A4.new_zeros(*matched_NA.shape, 4)
    for n, target in enumerate(targets):
        positive_A = positive_NA[n]
        matched_P = matched_NA[n][positive_A]
        labels_NA[n, positive_A] = target.labels_G[matched_P].to(labels_NA.dtype)
        boxes_NA4[n, positive_A] = target.boxes_G4[matched_P].to(boxes_NA4.dtype)
    return AnchorTargets(
        positive_NA=positive_NA, ignored_NA=ignored_NA, labels_NA=labels_NA, boxes_NA4=boxes_NA4, matched_NA=matched_NA
    )


def best_overlaps(anchors_A4: Tensor, boxes_G4: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the highest IoU of each anchor, the box with that IoU, and whether the anchor is the best for some box.

    The function compares one box at a time with the tiles of anchors that the box touches, and keeps a running maximum.
    Memory grows with the number of anchors, not with anchors times boxes. An IoU of NaN, from a NaN coordinate, counts
    as 0.

    Args:
        anchors_A4: anchors, xyxy, input pixels, any float type.
        boxes_G4: ground-truth boxes, xyxy, input pixels; G may be 0.

    Returns:
        best_iou_A: highest IoU with any box; 0 if the anchor overlaps no box.
        best_box_A: int64 index of the box with that IoU, the first of equal ones; 0 if the anchor overlaps no box.
        is_best_A: bool, true if the anchor overlaps some box and no other anchor has a higher IoU with that box.
    """
    A = len(anchors_A4)
    T = -(-A // TILE)
    # One row per coordinate. The last tile is padded with boxes that overlap no box.
    columns_4TU = anchors_A4.new_full((4, T * TILE), -torch.inf)
    columns_4TU[:2] = torch.inf
    columns_4TU[:, :A] = anchors_A4.T
    columns_4TU = columns_4TU.view(4, T, TILE)
    sides_2TU = (columns_4TU[2:] - columns_4TU[:2]).clamp_(min=0)
    area_TU = sides_2TU[0] * sides_2TU[1]
    low_2T, high_2T = columns_4TU[:2].amin(dim=2), columns_4TU[2:].amax(dim=2)
    best_iou_TU = torch.zeros_like(area_TU)
    best_box_TU = torch.zeros_like(area_TU, dtype=torch.int64)
    is_best_TU = torch.zeros_like(area_TU, dtype=torch.bool)
    boxes_G4 = boxes_G4.to(anchors_A4.dtype)
    area_G = area(boxes_G4)
    for first in range(0, len(boxes_G4), BOXES):
        chunk_G4 = boxes_G4[first : first + BOXES]
        apart_G2T = (chunk_G4[:, :2, None] >= high_2T) | (chunk_G4[:, 2:, None] <= low_2T)
        box, tile = torch.nonzero(~apart_G2T.any(dim=1), as_tuple=True)
        touched = torch.split(tile, torch.bincount(box, minlength=len(chunk_G4)).tolist())
        for g, tile_S in enumerate(touched, first):
            if not len(tile_S):
                continue
            anchors_4SU = columns_4TU[:, tile_S]
            low_2SU = torch.maximum(anchors_4SU[:2], boxes_G4[g, :2, None, None])
            sides_2SU = torch.minimum(anchors_4SU[2:], boxes_G4[g, 2:, None, None]).sub_(low_2SU).clamp_(min=0)
            common_SU = sides_2SU[0] * sides_2SU[1]
            iou_SU = common_SU / (area_TU[tile_S] + area_G[g] - common_SU)
            iou_SU = torch.where(iou_SU > 0, iou_SU, 0)
            before_SU = best_iou_TU[tile_S]
            better_SU = iou_SU > before_SU
            best_iou_TU[tile_S] = torch.where(better_SU, iou_SU, before_SU)
            best_box_TU[tile_S] = best_box_TU[tile_S].masked_fill_(better_SU, g)
            is_best_TU[tile_S] |= (iou_SU == iou_SU.max()) & (iou_SU > 0)
    return best_iou_TU.view(-1)[:A], best_box_TU.view(-1)[:A], is_best_TU.view(-1)[:A]


def _match_image(
    anchors_A4: Tensor, target: Target, positive_iou: float, negative_iou: float, low_quality_matches: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return positive_A (bool), ignored_A (bool) and matched_A (int64 index of the matched box) of one image."""
    object_index_O = torch.nonzero(~target.crowd_G).squeeze(1)
    best_iou_A, best_object_A, is_best_A = best_overlaps(anchors_A4, target.boxes_G4[object_index_O])
    positive_A = best_iou_A >= positive_iou
    if low_quality_matches:
        positive_A = positive_A | is_best_A
    # With a threshold of 0, an anchor that overlaps no object must not become positive.
    positive_A &= best_iou_A > 0
    ignored_A = (best_iou_A >= negative_iou) & ~positive_A
    area_A = area(anchors_A4)
    for box_4 in target.boxes_G4[target.crowd_G].to(anchors_A4.dtype):
        common_A = intersection(anchors_A4, box_4)
        ignored_A |= (common_A >= positive_iou * area_A) & (common_A > 0) & ~positive_A
    if len(object_index_O):
        matched_A = torch.where(positive_A, object_index_O[best_object_A], 0)
    else:
        matched_A = torch.zeros_like(best_object_A)
    return positive_A, ignored_A, matched_A


def supports_match_native(anchors_A4: Tensor, targets: Sequence[Target]) -> bool:
    """Return whether `match_native` supports these inputs.

    It supports float32 anchors on the CPU and targets on the CPU. It requires the C library.
    """
    if anchors_A4.device.type != "cpu" or anchors_A4.dtype != torch.float32 or not targets:
        return False
    return all(target.boxes_G4.device.type == "cpu" for target in targets) and available()


def match_native(
    anchors_A4: Tensor,
    targets: Sequence[Target],
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality_matches: bool,
) -> AnchorTargets:
    """Match in C. The result equals that of `match_torch` bit for bit.

    Arguments and result are those of `match`. The inputs must fulfil `supports_match_native`.

    Raises:
        RuntimeError: the C library is missing.
        TypeError: the anchors are not float32 on the CPU.
        ValueError: the targets have 2^31 or more boxes.
    """
    N, A = len(targets), len(anchors_A4)
    anchors_A4 = anchors_A4.detach().contiguous()
    boxes_G4 = torch.cat([target.boxes_G4.detach().to(torch.float32) for target in targets]).contiguous()
    labels_G = torch.cat([target.labels_G.to(torch.int64) for target in targets])
    crowd_G = torch.cat([target.crowd_G.to(torch.bool) for target in targets])
    starts = torch.tensor(
        list(accumulate((len(target.boxes_G4) for target in targets), initial=0)), dtype=torch.int64, device="cpu"
    )
    G = len(boxes_G4)
    if G >= 2**31:
        raise ValueError(f"expected fewer than 2^31 ground-truth boxes, found {G}")
    positive_NA, ignored_NA = buffer(N, A, dtype=torch.bool), buffer(N, A, dtype=torch.bool)
    labels_NA, matched_NA = buffer(N, A, dtype=torch.int64), buffer(N, A, dtype=torch.int64)
    boxes_NA4 = buffer(N, A, 4, dtype=torch.float32)
    call(
        "rn_match",
        address(anchors_A4, name="anchors", dtype=torch.float32, shape=(A, 4)),
        A,
        address(boxes_G4, name="boxes", dtype=torch.float32, shape=(G, 4)),
        address(labels_G, name="labels", dtype=torch.int64, shape=(G,)),
        address(crowd_G, name="crowd", dtype=torch.bool, shape=(G,)),
        address(starts, name="starts", dtype=torch.int64, shape=(N + 1,)),
        N,
        positive_iou,
        negative_iou,
        int(low_quality_matches),
        torch.get_num_threads(),
        address(positive_NA, name="positive", dtype=torch.bool, shape=(N, A)),
        address(ignored_NA, name="ignored", dtype=torch.bool, shape=(N, A)),
        address(labels_NA, name="labels", dtype=torch.int64, shape=(N, A)),
        address(boxes_NA4, name="target boxes", dtype=torch.float32, shape=(N, A, 4)),
        address(matched_NA, name="matched", dtype=torch.int64, shape=(N, A)),
    )
    return AnchorTargets(
        positive_NA=positive_NA, ignored_NA=ignored_NA, labels_NA=labels_NA, boxes_NA4=boxes_NA4, matched_NA=matched_NA
    )
