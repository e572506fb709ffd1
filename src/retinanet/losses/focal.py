"""Focal loss (Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002, equations 4 and 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from retinanet.config import LossConfig
from retinanet.losses.cross_entropy import Reduction, balance, in_float32, reduce, sigmoid_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float = LossConfig.alpha,
    gamma: float = LossConfig.gamma,
    reduction: Reduction = "none",
) -> Tensor:
    """Focal loss: -alpha (1 - p)^gamma log p for y = 1, -(1 - alpha) p^gamma log(1 - p) for y = 0.

    A drop-in for `torchvision.ops.sigmoid_focal_loss`, but for alpha's default (0.75 here, 0.25 there) and for what
    half-precision inputs give: float32 here. With soft targets t, p_t = t p + (1 - t)(1 - p) and the
    cross-entropy mixes both terms, as there. Finite, with exact gradients, for logits of +-1e4.

    Args:
        inputs: logits of any shape.
        targets: the same shape (or one that broadcasts to it), in [0, 1].
        alpha: weight of the positives in [0, 1]; a negative alpha means no weighting.
        gamma: focusing parameter, 0 or more; 0 gives alpha-balanced cross-entropy.
        reduction: none, mean or sum.

    Returns:
        float32 (float64 for float64 inputs), of the inputs' shape or, reduced, a scalar.

    Raises:
        ValueError: gamma below 0, alpha above 1, or another reduction.
    """
    if gamma < 0:
        raise ValueError(f"gamma must be 0 or more, found {gamma}")
    if alpha > 1:
        raise ValueError(f"alpha must be at most 1, found {alpha}")
    x, t = in_float32(inputs), in_float32(targets)
    loss = sigmoid_cross_entropy(x, t)
    if gamma > 0:
        # 1 - p_t without a difference that cancels. Below gamma 1 the power has an infinite slope at 0; there the
        # cross-entropy has long underflowed, so the clamp changes no value that float32 can hold.
        wrong = t * torch.sigmoid(-x) + (1 - t) * torch.sigmoid(x)
        if gamma < 1:
            wrong = wrong.clamp(min=torch.finfo(wrong.dtype).tiny)
        loss = wrong**gamma * loss
    if alpha >= 0:
        loss = balance(t, alpha) * loss
    return reduce(loss, reduction)
