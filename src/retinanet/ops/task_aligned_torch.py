"""Task-aligned assignment of anchors in torch, batched over images and boxes, on any device.

The CPU never waits for a GPU. `retinanet.ops.task_aligned` documents the rule.

Shape suffixes: N batch, A anchors, K classes, G boxes of an image after padding, M images of a chunk, J candidate
anchors of a box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from retinanet.boxes import iou
from retinanet.ops.assignment import box_batch, centres, claim, claim_for_unreached, claimed_targets, inside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.ops.assignment import BoxBatch
    from retinanet.types import AnchorTargets, Target

CANDIDATES: Final = 13
"""Number of anchors of an object, m in the paper."""
PAIRS: Final = 2**23
"""Largest number of pairs of a box and an anchor in a chunk on a GPU. A pair needs about 60 bytes: 480 MiB."""
PAIRS_PER_THREAD: Final = 2**16
"""Largest number of pairs in a chunk on the CPU, per thread."""
LAST_ANCHOR: Final = 2**32 - 1
"""Keys hold this number minus the index of the anchor, so that the first anchor has the largest key."""


@torch.no_grad()
def task_aligned_torch(
    anchors_A4: Tensor,
    targets: Sequence[Target],
    *,
    predicted_NA4: Tensor,
    logits_NAK: Tensor | None,
    crowd_share: float,
    low_quality_matches: bool,
) -> AnchorTargets:
    """Assign in torch. Arguments and result are those of `retinanet.ops.task_aligned.task_aligned`."""
    boxes = box_batch(targets)
    (N, G), A = boxes.labels_NG.shape, len(anchors_A4)
    predicted_NA4 = predicted_NA4.to(torch.float32).expand(N, A, 4)
    centres_A2 = centres(anchors_A4.to(torch.float32))
    # For each box: the anchors with the largest metric, and, for the fallback, those with the largest IoU. A key of
    # LAST_ANCHOR is anchor 0 with the value 0.
    shape = (1 + low_quality_matches, N, G, min(CANDIDATES, A))
    best = _Best(
        keys_2NGJ=torch.full(shape, LAST_ANCHOR, dtype=torch.int64, device=anchors_A4.device),
        iou_2NGJ=torch.zeros(shape, dtype=torch.float32, device=anchors_A4.device),
    )
    _search(best, centres_A2, boxes, predicted_NA4, logits_NAK)
    claims_NA = claim(best.anchor(0), best.iou_2NGJ[0], (best.keys_2NGJ[0] >> 32) > 0, num_anchors=A)
    if low_quality_matches and A:
        claims_NA = claim_for_unreached(claims_NA, best.anchor(1), best.iou_2NGJ[1])
    return claimed_targets(claims_NA, boxes, anchors_A4, crowd_share=crowd_share)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Best:
    """The anchors with the largest metric (index 0) and the largest IoU (index 1, if needed) of each box.

    Args:
        keys_2NGJ: int64, the bits of the value and `LAST_ANCHOR` minus the index of the anchor.
        iou_2NGJ: IoU of the predicted box at the anchor with the box.
    """

    keys_2NGJ: Tensor
    iou_2NGJ: Tensor

    def anchor(self, i: int) -> Tensor:
        """Return the indices of the anchors, (N, G, J)."""
        return LAST_ANCHOR - (self.keys_2NGJ[i] & LAST_ANCHOR)

    def keys(self, value_S: Tensor, anchor_S: Tensor) -> Tensor:
        """Return the keys of the largest values of the last dimension. Of equal values, the first anchors are used."""
        # Values are not negative and have the order of their bits.
        keys_S = (value_S.view(torch.int32).to(torch.int64) << 32) | (LAST_ANCHOR - anchor_S)
        return keys_S.topk(min(self.keys_2NGJ.shape[3], keys_S.shape[-1]), dim=-1).values


def _search(best: _Best, centres_A2: Tensor, boxes: BoxBatch, predicted_NA4: Tensor, logits_NAK: Tensor | None) -> None:
    """Fill `best` from all pairs of a box and an anchor, in chunks of whole images or of some boxes of one image."""
    (N, G), A = boxes.labels_NG.shape, len(centres_A2)
    limit = PAIRS if centres_A2.device.type != "cpu" else PAIRS_PER_THREAD * torch.get_num_threads()
    images = max(1, min(N, limit // max(1, G * A)))
    count = max(1, min(G, limit // max(1, images * A)))
    anchor_A = torch.arange(A, device=centres_A2.device)
    for rows, columns in (
        (slice(n, n + images), slice(g, g + count)) for n in range(0, N, images) for g in range(0, G, count)
    ):
        box_MG14 = boxes.boxes_NG4[rows, columns, None]
        iou_MGA = iou(predicted_NA4[rows, None], box_MG14)
        iou_MGA.masked_fill_(boxes.crowd_NG[rows, columns, None], 0.0)
        logits_MGA = None
        if logits_NAK is not None:
            label_M1G = boxes.labels_NG[rows, None, columns]
            logits_MGA = logits_NAK[rows].gather(2, label_M1G.expand(-1, A, -1)).transpose(1, 2)
        metric_MGA = _metric(iou_MGA, logits_MGA).masked_fill_(~inside(centres_A2, box_MG14), 0.0)
        for i, value_MGA in enumerate((metric_MGA, iou_MGA)[: len(best.keys_2NGJ)]):
            keys_MGJ = best.keys(value_MGA, anchor_A)
            best.keys_2NGJ[i, rows, columns] = keys_MGJ
            best.iou_2NGJ[i, rows, columns] = iou_MGA.gather(2, LAST_ANCHOR - (keys_MGJ & LAST_ANCHOR))


def _metric(iou_S: Tensor, logits_S: Tensor | None) -> Tensor:
    """Return the alignment metric: the predicted probability, if any, times the IoU to the power of six, float32.

    The sigmoid is computed in float64 and rounded. In float32, its last bit depends on the device, and on the CPU on
    the position in the tensor. A metric of NaN becomes 0.
    """
    cube_S = iou_S * iou_S * iou_S
    metric_S = cube_S * cube_S
    if logits_S is not None:
        metric_S = metric_S * logits_S.double().sigmoid().float()
    return metric_S.nan_to_num_(nan=0.0)
