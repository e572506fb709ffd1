"""Task-aligned assignment of anchors (Feng et al., arXiv 2108.07755, section 3.2).

`retinanet.matching.TaskAlignedAssigner` documents the rule. There are two forms: C for tensors on the CPU, and batched
torch otherwise. Both forms return equal results, bit for bit, if their sigmoids are equal, see native/task_aligned.c.

Shape suffixes: N batch, A anchors, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from retinanet.ops.task_aligned_native import supports_task_aligned_native, task_aligned_native
from retinanet.ops.task_aligned_torch import task_aligned_torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.types import AnchorTargets, Target


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

    Anchors and boxes are compared in float32.

    Args:
        anchors_A4: anchors, xyxy, input pixels.
        targets: ground truth of each image, at least one image.
        predicted_NA4: predicted box at each anchor, xyxy, input pixels; N may be 1 for all images.
        logits_NAK: predicted class scores before the sigmoid, or None for equal scores.
        crowd_share: share of the area of a negative anchor in a crowd region at which the anchor is ignored.
        low_quality_matches: whether an object without a positive anchor gets the anchor with the highest IoU.
    """
    is_native = supports_task_aligned_native(anchors_A4, targets, predicted_NA4, logits_NAK)
    form = task_aligned_native if is_native else task_aligned_torch
    return form(
        anchors_A4,
        targets,
        predicted_NA4=predicted_NA4,
        logits_NAK=logits_NAK,
        crowd_share=crowd_share,
        low_quality_matches=low_quality_matches,
    )
