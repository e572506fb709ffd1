"""Cross-entropy on logits: plain, alpha-balanced, weighted. What focal loss is measured against.

In terms of z, the logit of the wrong answer (z = -x for y = 1, z = x for y = 0), cross-entropy is softplus(z).
Everything here and in `focal` is written so: no 1 - p ever cancels, and gradients are exact in the tails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from retinanet.config import LossConfig
from retinanet.losses.base import ClassificationLoss
from retinanet.ops.focal_terms import FocalTerms

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


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(ClassificationLoss):
    """`sigmoid_cross_entropy` as a loss to train with."""

    label: ClassVar[str] = "cross-entropy"

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the loss of each logit."""
        return sigmoid_cross_entropy(logits, targets)

    def fused_terms(self, logits_NAK: Tensor, target: float) -> FocalTerms | None:
        """Return the loss as the fused focal kernels take it: both weights 1, gamma 0."""
        one_K = logits_NAK.new_ones(logits_NAK.shape[-1], dtype=torch.float32)
        return FocalTerms(positive_weight_K=one_K, negative_weight_K=one_K, gamma=0.0, target=target)


@dataclass(frozen=True, kw_only=True)
class BalancedCrossEntropy(ClassificationLoss):
    """`balanced_cross_entropy` as a loss to train with; `class_alpha`, if given, holds an alpha for each class."""

    label: ClassVar[str] = "alpha-balanced cross-entropy"
    alpha: float = LossConfig.alpha
    class_alpha: tuple[float, ...] = ()

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the loss of each logit."""
        return balanced_cross_entropy(logits, targets, alpha=self.alpha_of(logits, classes))

    def fused_terms(self, logits_NAK: Tensor, target: float) -> FocalTerms | None:
        """Return the loss as the fused focal kernels take it."""
        return self.focal_terms(logits_NAK, target, gamma=0.0)

    def focal_terms(self, logits_NAK: Tensor, target: float, *, gamma: float) -> FocalTerms:
        """Return the terms of focal loss with this alpha; with gamma 0, those of alpha-balanced cross-entropy."""
        alpha_K = logits_NAK.new_tensor(self.class_alpha or (self.alpha,), dtype=torch.float32)
        alpha_K = alpha_K.expand(logits_NAK.shape[-1])
        positive_K = alpha_K * target + (1 - alpha_K) * (1 - target)
        return FocalTerms(positive_weight_K=positive_K, negative_weight_K=1 - alpha_K, gamma=gamma, target=target)

    def alpha_of(self, logits: Tensor, classes: Tensor | None) -> float | Tensor:
        """Return the weight of the positives: one for all, or one for each logit. Arguments as `__call__`."""
        if not self.class_alpha:
            return self.alpha
        alpha_K = logits.new_tensor(self.class_alpha, dtype=torch.float32)
        return alpha_K if classes is None else alpha_K[classes]


@dataclass(frozen=True, kw_only=True)
class WeightedCrossEntropy(ClassificationLoss):
    """`weighted_cross_entropy` as a loss to train with."""

    label: ClassVar[str] = "weighted cross-entropy"
    negative_weight: float = LossConfig.negative_weight

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the loss of each logit."""
        return weighted_cross_entropy(logits, targets, negative_weight=self.negative_weight)

    def settings(self) -> tuple[str, ...]:
        """Return the weight of the negatives, as text."""
        return (f"negatives × {self.negative_weight:g}",)


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
