"""Parts that the assigners ATSS and task-aligned share: targets of a batch, one object per anchor, crowd regions.

No function makes the CPU wait for a GPU. All shapes follow from the shapes of the inputs.

Shape suffixes: N batch, A anchors, G boxes of an image after padding, J candidate anchors of a box.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import torch

from retinanet.ops.matching import match
from retinanet.ops.matching_torch import padded
from retinanet.types import AnchorTargets, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

LAST_BOX: Final = 2**32 - 1
"""Claims hold this number minus the index of the box, so that the first box has the largest claim."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxBatch:
    """Ground truth of all images in one tensor per field.

    Each image has at least one box of padding, the last one. Boxes of padding have no area, so that they overlap
    nothing and contain no centre.

    Args:
        boxes_NG4: xyxy, input pixels, float32; 0 in the padding.
        labels_NG: int64 class ids; 0 in the padding.
        crowd_NG: bool, true for a crowd region.
    """

    boxes_NG4: Tensor
    labels_NG: Tensor
    crowd_NG: Tensor


def box_batch(targets: Sequence[Target]) -> BoxBatch:
    """Return the targets of all images, padded to one more than the largest number of boxes."""
    G = 1 + max(len(target.boxes_G4) for target in targets)
    return BoxBatch(
        boxes_NG4=padded([target.boxes_G4.detach() for target in targets], G).to(torch.float32),
        labels_NG=padded([target.labels_G for target in targets], G).to(torch.int64),
        crowd_NG=padded([target.crowd_G for target in targets], G).to(torch.bool),
    )


def joined(targets: Sequence[Target]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the boxes (G, 4), float32, and the crowd flags (G,) of all images in a row, for C code on the CPU.

    The third tensor, int64 (N + 1,), holds the index of the first box of each image, then the number of boxes.
    """
    boxes_G4 = torch.cat([target.boxes_G4.detach().to(torch.float32) for target in targets]).contiguous()
    crowd_G = torch.cat([target.crowd_G.to(torch.bool) for target in targets])
    starts = list(accumulate((len(target.boxes_G4) for target in targets), initial=0))
    return boxes_G4, crowd_G, torch.tensor(starts, dtype=torch.int64, device="cpu")


def centres(boxes_B4: Tensor) -> Tensor:
    """Return the centres of boxes, (..., 2)."""
    return (boxes_B4[..., :2] + boxes_B4[..., 2:]) / 2


def inside(centres_P2: Tensor, boxes_P4: Tensor) -> Tensor:
    """Return whether each point lies inside its box, not on the border of the box."""
    return ((centres_P2 > boxes_P4[..., :2]) & (centres_P2 < boxes_P4[..., 2:])).all(dim=-1)


def claim(anchor_NGJ: Tensor, iou_NGJ: Tensor, positive_NGJ: Tensor, *, num_anchors: int) -> Tensor:
    """Return the largest claim to each anchor, int64 (N, A), 0 without a claim.

    A positive candidate claims its anchor with its IoU. Of several boxes, the box with the highest IoU gets the anchor,
    and of equal IoUs the first box. A claim holds the bits of the IoU and the index of the box, see `LAST_BOX`.
    """
    claims_NGJ = _claims(iou_NGJ, positive_NGJ)
    free_NA = claims_NGJ.new_zeros((len(anchor_NGJ), num_anchors))
    return free_NA.scatter_reduce(1, anchor_NGJ.flatten(1), claims_NGJ.flatten(1), "amax")


def claim_for_unreached(claims_NA: Tensor, anchor_NGJ: Tensor, iou_NGJ: Tensor) -> Tensor:
    """Add a claim of each box that got no anchor: to its candidate of highest IoU that no box has claimed.

    The first candidate of equal IoUs is used, and none with an IoU of 0, the IoU of crowd regions and padding. If
    several boxes claim one anchor, the rule of `claim` decides, and the other boxes stay without an anchor.
    """
    N, G, J = anchor_NGJ.shape
    box_NA = _claiming_box(claims_NA, unclaimed=G - 1)  # the last box is padding
    reached_NG = torch.zeros_like(anchor_NGJ[:, :, 0]).scatter(1, box_NA, 1)
    taken_NGJ = claims_NA.gather(1, anchor_NGJ.flatten(1)).view(N, G, J) > 0
    best_NG1, index_NG1 = iou_NGJ.masked_fill(taken_NGJ, 0.0).max(dim=2, keepdim=True)
    claims_NG1 = _claims(best_NG1, (best_NG1 > 0) & (reached_NG == 0)[:, :, None])
    anchor_NG = anchor_NGJ.gather(2, index_NG1).flatten(1)
    return claims_NA.scatter_reduce(1, anchor_NG, claims_NG1.flatten(1), "amax")


def _claims(iou_NGJ: Tensor, positive_NGJ: Tensor) -> Tensor:
    G = iou_NGJ.shape[1]
    box_G = torch.arange(LAST_BOX, LAST_BOX - G, -1, device=iou_NGJ.device)
    # Positive floats have the order of their bits.
    claims_NGJ = (iou_NGJ.contiguous().view(torch.int32).to(torch.int64) << 32) | box_G[:, None]
    return claims_NGJ.masked_fill_(~positive_NGJ, 0)


def _claiming_box(claims_NA: Tensor, *, unclaimed: int) -> Tensor:
    """Return the index of the box with the claim to each anchor, or `unclaimed` for an anchor without a claim."""
    return (LAST_BOX - (claims_NA & LAST_BOX)).clamp_(max=unclaimed)


def claimed_targets(claims_NA: Tensor, boxes: BoxBatch, anchors_A4: Tensor, *, crowd_share: float) -> AnchorTargets:
    """Return the targets: a claimed anchor is positive, an anchor in a crowd region is ignored, others are negative.

    Args:
        claims_NA: claims to the anchors, see `claim`.
        boxes: boxes of the targets.
        anchors_A4: anchors, xyxy, input pixels.
        crowd_share: share of the area of an anchor in a crowd region at which the anchor is ignored.
    """
    N, A = claims_NA.shape
    positive_NA = claims_NA > 0
    matched_NA = _claiming_box(claims_NA, unclaimed=boxes.labels_NG.shape[1] - 1)  # the last box is padding
    # A GPU compares also without crowd regions, because the CPU would wait for the result of any().
    if anchors_A4.device.type != "cpu" or bool(boxes.crowd_NG.any()):
        ignored_NA = in_crowd(anchors_A4, boxes, share=crowd_share) & ~positive_NA
    else:
        ignored_NA = torch.zeros_like(positive_NA)
    return AnchorTargets(
        positive_NA=positive_NA,
        ignored_NA=ignored_NA,
        labels_NA=boxes.labels_NG.gather(1, matched_NA),
        boxes_NA4=boxes.boxes_NG4.gather(1, matched_NA[:, :, None].expand(N, A, 4)).to(anchors_A4.dtype),
        matched_NA=matched_NA.masked_fill(~positive_NA, 0),
    )


def in_crowd(anchors_A4: Tensor, boxes: BoxBatch, *, share: float) -> Tensor:
    """Return whether a crowd region covers at least a share of the area of each anchor, (N, A).

    The matching by IoU applies its rule for crowd regions to the crowd regions alone: no box is an object, and no IoU
    reaches 2.
    """
    crowds_NG4 = boxes.boxes_NG4.masked_fill(~boxes.crowd_NG[:, :, None], 0.0)
    crowds = [
        Target(boxes_G4=boxes_G4, labels_G=labels_G, crowd_G=crowd_G)
        for boxes_G4, labels_G, crowd_G in zip(crowds_NG4, boxes.labels_NG, boxes.crowd_NG, strict=True)
    ]
    return match(anchors_A4, crowds, positive_iou=share, negative_iou=2.0, low_quality_matches=False).ignored_NA
