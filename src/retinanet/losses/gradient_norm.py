"""Gradient norm of each example, which equalization loss v2 and GHM-C turn into weights.

With p = sigmoid(logit) and the target t, the gradient of sigmoid cross-entropy with respect to the logit is p - t.
Shape suffixes: N batch, A anchors, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from retinanet.losses.cross_entropy import in_float32

if TYPE_CHECKING:
    from torch import Tensor

    from retinanet.types import AnchorTargets, HeadOutputs


@torch.no_grad()
def gradient_norms(outputs: HeadOutputs, targets: AnchorTargets, target: float) -> tuple[Tensor, Tensor]:
    """Return the gradient norm |p - t| of each example, and which examples are positive, both (N, A, K).

    All sizes are fixed, so a GPU is not waited for. Ignored anchors have a norm like background; the caller drops it.

    Args:
        outputs: outputs of the network.
        targets: targets of the anchors.
        target: target t of a positive example. The target of all other examples is 0.
    """
    p_NAK = in_float32(outputs.logits_NAK).sigmoid()
    label_NA1 = (targets.labels_NA * targets.positive_NA).unsqueeze(-1)  # a label that is not used may be no class id
    positive_NAK = torch.zeros_like(p_NAK, dtype=torch.bool).scatter(2, label_NA1, targets.positive_NA.unsqueeze(-1))
    return torch.where(positive_NAK, (target - p_NAK).abs(), p_NAK), positive_NAK
