"""Assignment by ATSS in torch, batched over images and boxes, on any device.

The CPU never waits for a GPU. `retinanet.ops.atss` documents the rule.

Shape suffixes: N batch, A anchors, G boxes of an image after padding, B boxes of all images, P positions of a level,
C anchors per position, J candidate anchors of a box.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

import torch

from retinanet.boxes import iou
from retinanet.ops.assignment import box_batch, centres, claim, claim_for_unreached, claimed_targets, inside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.types import AnchorTargets, Target

CENTRE_STEPS: Final = 64
"""Centres of anchors are rounded to 1/64 pixel. The corners of an anchor are rounded numbers, so that the centres of
the anchors of one position differ in their last bits."""
IOU_STEPS: Final = 2**16
"""IoUs are rounded to 1/65,536 before they are compared with the threshold. Sums of such numbers are exact, so that
their order has no effect."""
PAIRS: Final = 2**23
"""Largest number of pairs of a box and a position in a chunk on a GPU. A pair needs 40 bytes: 320 MiB."""
PAIRS_PER_THREAD: Final = 2**16
"""Largest number of pairs in a chunk on the CPU, per thread."""


def atss_torch(
    anchors_A4: Tensor,
    targets: Sequence[Target],
    *,
    positions: Sequence[tuple[int, int]],
    candidates: int,
    crowd_share: float,
    low_quality_matches: bool,
) -> AnchorTargets:
    """Assign by ATSS in torch. Arguments and result are those of `retinanet.ops.atss.atss`.

    Args:
        anchors_A4: see `atss`.
        targets: see `atss`.
        positions: number of positions of each level, and of anchors at each position, see `atss.level_positions`.
        candidates: see `atss`.
        crowd_share: see `atss`.
        low_quality_matches: see `atss`.
    """
    boxes = box_batch(targets)
    anchors_32_A4 = anchors_A4.detach().to(torch.float32)
    centres_A2 = rounded_centres(anchors_32_A4)
    anchor_NGJ = _candidates(centres_A2, centres(boxes.boxes_NG4), positions, candidates)
    iou_NGJ = iou(anchors_32_A4[anchor_NGJ], boxes.boxes_NG4[:, :, None])
    iou_NGJ.masked_fill_(boxes.crowd_NG[:, :, None], 0.0)
    positive_NGJ = _above_threshold(iou_NGJ) & inside(centres_A2[anchor_NGJ], boxes.boxes_NG4[:, :, None])
    claims_NA = claim(anchor_NGJ, iou_NGJ, positive_NGJ & (iou_NGJ > 0), num_anchors=len(anchors_A4))
    if low_quality_matches and anchor_NGJ.shape[2]:
        claims_NA = claim_for_unreached(claims_NA, anchor_NGJ, iou_NGJ)
    return claimed_targets(claims_NA, boxes, anchors_A4, crowd_share=crowd_share)


def rounded_centres(anchors_A4: Tensor) -> Tensor:
    """Return the centres of float32 anchors, rounded to 1 / `CENTRE_STEPS` pixel, halves to even."""
    return ((anchors_A4[:, :2] + anchors_A4[:, 2:]) * (CENTRE_STEPS / 2)).round_() / CENTRE_STEPS


def _candidates(centres_A2: Tensor, boxes_NG2: Tensor, positions: Sequence[tuple[int, int]], candidates: int) -> Tensor:
    """Return the anchors at the positions of each level that are closest to the centre of each box, int64 (N, G, J).

    The positions of a level are ordered by squared distance, rounded to float32. Of equal distances, the first is used.
    """
    N, G, _ = boxes_NG2.shape
    device = centres_A2.device
    counts = [P for P, _ in positions]
    firsts = list(accumulate((P * C for P, C in positions), initial=0))
    # The first anchor of each position. All positions of all levels are compared at once.
    anchor_P = torch.cat(
        [
            torch.arange(first, first + P * C, C, device=device)
            for first, (P, C) in zip(firsts[:-1], positions, strict=True)
        ]
    )
    place_P2 = centres_A2[anchor_P]
    limit = PAIRS if device.type != "cpu" else PAIRS_PER_THREAD * torch.get_num_threads()
    chunks = []
    for box_M12 in torch.split(boxes_NG2.reshape(-1, 1, 2), max(1, limit // max(1, len(anchor_P)))):
        # In float64, the squares are exact, so that C may fuse them with the addition.
        squared_MP2 = (place_P2 - box_M12).to(torch.float64).square_()
        distance_MP = (squared_MP2[..., 0] + squared_MP2[..., 1]).to(torch.float32)
        distance_MP.nan_to_num_(nan=torch.inf, posinf=torch.inf)
        # Distances are not negative and have the order of their bits. The anchor makes all numbers different.
        keys_MP = (distance_MP.view(torch.int32).to(torch.int64) << 32) | anchor_P
        chunks.append(
            [
                keys_MP.topk(min(candidates, P), largest=False).values
                for P, keys_MP in zip(counts, torch.split(keys_MP, counts, dim=1), strict=True)
            ]
        )
    levels = []
    for (_, C), parts in zip(positions, zip(*chunks, strict=True), strict=True):
        anchor_Bk = torch.cat(parts) & 0xFFFFFFFF
        levels.append((anchor_Bk[..., None] + torch.arange(C, device=device)).view(N, G, -1))
    return torch.cat(levels, dim=2)


def _above_threshold(iou_NGJ: Tensor) -> Tensor:
    """Return whether each IoU is at least the mean plus the standard deviation of the IoUs of its box.

    The standard deviation is that of a sample, with the divisor J - 1. With one candidate it is 0.
    """
    J = iou_NGJ.shape[2]
    steps_NGJ = (iou_NGJ * IOU_STEPS).round_().to(torch.int64)
    sum_NG1 = steps_NGJ.sum(dim=2, keepdim=True)
    square_NG1 = (steps_NGJ * steps_NGJ).sum(dim=2, keepdim=True)
    variance_NG1 = (J * square_NG1 - sum_NG1 * sum_NG1).to(torch.float64) / max(1, J * (J - 1))
    return steps_NGJ.to(torch.float64) >= sum_NG1.to(torch.float64) / max(1, J) + variance_NG1.sqrt_()
