"""Classification loss: `--loss retinanet_extras.losses:DistanceFocalLoss`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from retinanet.losses import ClassificationLoss


class DistanceFocalLoss(ClassificationLoss):
    """Multiply cross-entropy by |target - p|^gamma, without alpha. The option `gamma` sets the argument `gamma`."""

    def __init__(self, gamma: float = 2.0) -> None:
        self.gamma = gamma

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        x, t = logits.float(), targets.float().expand_as(logits)
        distance = (t - x.sigmoid()).abs()
        return distance**self.gamma * F.binary_cross_entropy_with_logits(x, t, reduction="none")
