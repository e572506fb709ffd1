"""Cross-entropy on logits: plain, alpha-balanced, weighted. What focal loss is measured against.

In terms of z, the logit of the wrong answer (z = -x for y = 1, z = x for y = 0), cross-entropy is softplus(z).
Everything here and in `focal` is written so: no 1 - p ever cancels, and gradients are exact in the tails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from retinanet.config import LossConfig

if TYPE_CHECKING:
    from torch import Tensor

Reduction = Literal["none", "mean", "sum"]


def sigmoid_cross_entropy(inputs: Tensor, targets: Tensor, reduction: Reduction = "none") -> Tensor:
    """Cross-entropy: -log p for y = 1, -log(1 - p) for y = 0, with p = sigmoid(inputs).

    Args:
        inputs: logits of any shape.
        targets: the same shape or one that broadcasts to it, in [0, 1]; soft targets mix the two terms.
        reduction: none, mean or sum.

    Returns:
        float32 (float64 for float64 inputs), of the inputs' shape or, reduced, a scalar.
    """
    x, t = in_float32(inputs), in_float32(targets)
    return reduce(t * F.softplus(-x) + (1 - t) * F.softplus(x), reduction)


def balanced_cross_entropy(
    inputs: Tensor, targets: Tensor, alpha: float | Tensor = LossConfig.alpha, reduction: Reduction = "none"
) -> Tensor:
    """Alpha-balanced cross-entropy: -alpha log p for y = 1, -(1 - alpha) log(1 - p) for y = 0.

    Source: arXiv 1708.02002, equation 3. Arguments as `sigmoid_cross_entropy`; alpha may be a tensor that broadcasts
    to the inputs, for example one value for each class.
    """
    return reduce(balance(in_float32(targets), alpha) * sigmoid_cross_entropy(inputs, targets), reduction)


def weighted_cross_entropy(
    inputs: Tensor,
    targets: Tensor,
    negative_weight: float = LossConfig.negative_weight,
    reduction: Reduction = "none",
) -> Tensor:
    """Cross-entropy with the negatives turned down: -log p for y = 1, -w log(1 - p) for y = 0.

    Source: YOLO (Redmon et al., arXiv 1506.02640, section 2.2) weighs boxes without an object by w = 0.5. Arguments as
    `sigmoid_cross_entropy`.
    """
    x, t = in_float32(inputs), in_float32(targets)
    return reduce(t * F.softplus(-x) + negative_weight * (1 - t) * F.softplus(x), reduction)


def in_float32(values: Tensor) -> Tensor:
    """Return the values in float32, whatever autocast made of them; float64 stays."""
    return values if values.dtype == torch.float64 else values.float()


def balance(targets: Tensor, alpha: float | Tensor) -> Tensor:
    """Return alpha_t = alpha t + (1 - alpha) (1 - t)."""
    return alpha * targets + (1 - alpha) * (1 - targets)


def reduce(loss: Tensor, reduction: Reduction) -> Tensor:
    """Return the loss itself, its mean or its sum.

    Raises:
        ValueError: a reduction that is none of the three.
    """
    if reduction == "none":
        return loss
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    raise ValueError(f"reduction must be 'none', 'mean' or 'sum', found {reduction!r}")
