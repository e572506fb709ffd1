"""Task-aligned assignment of anchors (Feng et al., arXiv 2108.07755, section 3.2).

The only form is in torch, batched over images and boxes. The CPU never waits for a GPU.
`retinanet.matching.TaskAlignedAssigner` documents the rule.

Shape suffixes: N batch, A anchors, K classes, G boxes of an image after padding, M images of a chunk, J candidate
anchors of a box.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from retinanet.boxes import iou
from retinanet.ops.assignment import box_batch, centres, claim, claim_for_unreached, claimed_targets, inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from retinanet.types import AnchorTargets, Target

CANDIDATES: Final = 13
"""Number of anchors of an object, m in the paper."""
PAIRS: Final = 2**23
"""Largest number of pairs of a box and an anchor in a chunk on a GPU. A pair needs about 40 bytes: 320 MiB."""
PAIRS_PER_THREAD: Final = 2**16
"""Largest number of pairs in a chunk on the CPU, per thread."""
LAST_ANCHOR: Final = 2**32 - 1


@torch.no_grad()
def task_aligned(
    anchors_A4: Tensor,
    targets: Sequence[Target],
    *,
    predicted_NA4: Tensor,
    logits_NAK: Tensor | None,
    crowd_share: float,
    low_quality_matches: bool,
) -> AnchorTargets:
    """Return whether each anchor of each image is positive, negative or ignored, and its matched ground-truth box.

    Args:
        anchors_A4: anchors, xyxy, input pixels.
        targets: ground truth of each image, at least one image.
        predicted_NA4: predicted box at each anchor, xyxy, input pixels; N may be 1 for all images.
        logits_NAK: predicted class scores before the sigmoid, or None for equal scores.
        crowd_share: share of the area of a negative anchor in a crowd region at which the anchor is ignored.
        low_quality_matches: whether an object without a positive anchor gets the anchor with the highest IoU.
    """
    boxes = box_batch(targets)
    (N, G), A = boxes.labels_NG.shape, len(anchors_A4)
    predicted_NA4 = predicted_NA4.to(torch.float32).expand(N, A, 4)
    centres_A2 = centres(anchors_A4.to(torch.float32))
    order_A = torch.arange(LAST_ANCHOR, LAST_ANCHOR - A, -1, device=anchors_A4.device)
    J = min(CANDIDATES, A)
    # For each box: the anchors with the largest metric, and, for the fallback, those with the largest IoU.
    keys_2NGJ = order_A.new_empty((1 + low_quality_matches, N, G, J))
    iou_2NGJ = centres_A2.new_empty(keys_2NGJ.shape)
    for rows, columns in _chunks(N, G, A, device=anchors_A4.device):
        box_MG14 = boxes.boxes_NG4[rows, columns, None]
        iou_MGA = iou(predicted_NA4[rows, None], box_MG14)
        iou_MGA.masked_fill_(boxes.crowd_NG[rows, columns, None], 0.0)
        metric_MGA = iou_MGA * iou_MGA * iou_MGA
        metric_MGA.square_()
        if logits_NAK is not None:
            metric_MGA *= _scores(logits_NAK[rows], boxes.labels_NG[rows, columns])
        metric_MGA.nan_to_num_(nan=0.0).masked_fill_(~inside(centres_A2, box_MG14), 0.0)
        for i, value_MGA in enumerate((metric_MGA, iou_MGA)[: len(keys_2NGJ)]):
            # Values are not negative and have the order of their bits. Of equal values, the first anchor is larger.
            keys_MGA = (value_MGA.view(torch.int32).to(torch.int64) << 32) | order_A
            keys_MGJ = keys_MGA.topk(J, dim=2).values
            keys_2NGJ[i, rows, columns] = keys_MGJ
            iou_2NGJ[i, rows, columns] = iou_MGA.gather(2, LAST_ANCHOR - (keys_MGJ & LAST_ANCHOR))
    anchor_2NGJ = LAST_ANCHOR - (keys_2NGJ & LAST_ANCHOR)
    claims_NA = claim(anchor_2NGJ[0], iou_2NGJ[0], (keys_2NGJ[0] >> 32) > 0, num_anchors=A)
    if low_quality_matches and J:
        claims_NA = claim_for_unreached(claims_NA, anchor_2NGJ[1], iou_2NGJ[1])
    return claimed_targets(claims_NA, boxes, anchors_A4, crowd_share=crowd_share)


def _scores(logits_MAK: Tensor, labels_MG: Tensor) -> Tensor:
    """Return the predicted probability of the class of each box at each anchor, float32 (M, G, A)."""
    M, A, _ = logits_MAK.shape
    logits_MAG = logits_MAK.gather(2, labels_MG[:, None].expand(M, A, labels_MG.shape[1]))
    return logits_MAG.float().sigmoid_().transpose(1, 2)


def _chunks(N: int, G: int, A: int, *, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Yield slices of images and of boxes that form chunks: whole images, or some boxes of one image."""
    limit = PAIRS if device.type != "cpu" else PAIRS_PER_THREAD * torch.get_num_threads()
    images = max(1, min(N, limit // max(1, G * A)))
    boxes = max(1, min(G, limit // max(1, images * A)))
    for n in range(0, N, images):
        for g in range(0, G, boxes):
            yield slice(n, n + images), slice(g, g + boxes)
