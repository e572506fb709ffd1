"""Focal loss (Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002, section 3) and its heirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from retinanet.config import LossConfig
from retinanet.losses.base import ClassificationLoss
from retinanet.losses.cross_entropy import (
    BalancedCrossEntropy,
    Reduction,
    balance,
    in_float32,
    reduce,
    sigmoid_cross_entropy,
)
from retinanet.ops.focal_terms import FocalTerms


def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float | Tensor = LossConfig.alpha,
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
        alpha: weight of the positives in [0, 1]; a negative alpha means no weighting. Or a tensor of such weights that
            broadcasts to the inputs, for example (K,): one for each class.
        gamma: focusing parameter, 0 or more; 0 gives alpha-balanced cross-entropy.
        reduction: none, mean or sum.

    Returns:
        float32 (float64 for float64 inputs), of the inputs' shape or, reduced, a scalar.

    Raises:
        ValueError: gamma below 0, alpha above 1, or another reduction.
    """
    _check_gamma(gamma)
    if not isinstance(alpha, torch.Tensor) and alpha > 1:
        raise ValueError(f"alpha must be at most 1, found {alpha}")
    x, t = in_float32(inputs), in_float32(targets)
    loss = sigmoid_cross_entropy(x, t)
    if gamma > 0:
        # 1 - p_t without a difference that cancels.
        loss = _power(t * torch.sigmoid(-x) + (1 - t) * torch.sigmoid(x), gamma) * loss
    if isinstance(alpha, torch.Tensor) or alpha >= 0:
        loss = balance(t, alpha) * loss
    return reduce(loss, reduction)


def quality_focal_loss(
    inputs: Tensor, quality: Tensor, gamma: float = LossConfig.gamma, reduction: Reduction = "none"
) -> Tensor:
    """Quality focal loss: |q - p|^gamma (-q log p - (1 - q) log(1 - p)).

    The target q is the IoU of the predicted box with its object where there is one, and 0 elsewhere, so that the score
    also says how well the box fits. Without alpha, as in the source: Li et al., arXiv 2006.04388, equation 5.

    Args:
        inputs: logits of any shape.
        quality: the same shape (or one that broadcasts to it), in [0, 1]; constant: no gradient flows into it.
        gamma: the source's beta, 0 or more.
        reduction: none, mean or sum.

    Returns:
        float32 (float64 for float64 inputs), of the inputs' shape or, reduced, a scalar.
    """
    _check_gamma(gamma)
    x, q = in_float32(inputs), in_float32(quality).detach()
    distance = (q * torch.sigmoid(-x) - (1 - q) * torch.sigmoid(x)).abs()  # q - p, exact in both tails
    return reduce(_power(distance, gamma) * sigmoid_cross_entropy(x, q), reduction)


def varifocal_loss(
    inputs: Tensor,
    quality: Tensor,
    alpha: float = LossConfig.alpha,
    gamma: float = LossConfig.gamma,
    reduction: Reduction = "none",
) -> Tensor:
    """Varifocal loss: q (-q log p - (1 - q) log(1 - p)) for q > 0, -alpha p^gamma log(1 - p) for q = 0.

    Only the background is turned down where it is easy; objects weigh as much as their box fits. Note that alpha weighs
    the background here. Source: Zhang et al., arXiv 2008.13367, equation 2 (alpha 0.75, gamma 2). Arguments as
    `quality_focal_loss`.
    """
    _check_gamma(gamma)
    x, q = in_float32(inputs), in_float32(quality).detach()
    weight = torch.where(q > 0, q, alpha * _power(torch.sigmoid(x), gamma))
    return reduce(weight * sigmoid_cross_entropy(x, q), reduction)


@dataclass(frozen=True, kw_only=True)
class FocalLoss(BalancedCrossEntropy):
    """`sigmoid_focal_loss` as a loss to train with; `class_alpha`, if given, holds an alpha for each class."""

    label: ClassVar[str] = "focal"
    gamma: float = LossConfig.gamma

    @property
    def focusing(self) -> float:
        """gamma."""
        return self.gamma

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the loss of each logit."""
        return sigmoid_focal_loss(logits, targets, alpha=self.alpha_of(logits, classes), gamma=self.gamma)

    def fused_terms(self, logits_NAK: Tensor, target: float) -> FocalTerms | None:
        """Return the loss as the fused focal kernels take it."""
        return self.focal_terms(logits_NAK, target, gamma=self.gamma)


@dataclass(frozen=True, kw_only=True)
class QualityFocalLoss(ClassificationLoss):
    """`quality_focal_loss` as a loss to train with."""

    label: ClassVar[str] = "quality focal"
    target: ClassVar[Literal["one", "iou"]] = "iou"
    gamma: float = LossConfig.gamma

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the loss of each logit."""
        return quality_focal_loss(logits, targets, gamma=self.gamma)


@dataclass(frozen=True, kw_only=True)
class VarifocalLoss(ClassificationLoss):
    """`varifocal_loss` as a loss to train with."""

    label: ClassVar[str] = "varifocal"
    target: ClassVar[Literal["one", "iou"]] = "iou"
    alpha: float = LossConfig.alpha
    gamma: float = LossConfig.gamma

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the loss of each logit."""
        return varifocal_loss(logits, targets, alpha=self.alpha, gamma=self.gamma)


def _power(base: Tensor, exponent: float) -> Tensor:
    """Return base^exponent with a finite slope at 0.

    Below 1 the slope there is infinite; but the cross-entropy that it is multiplied by has long underflowed, so the
    clamp changes no value that float32 can hold.
    """
    if exponent == 0:
        return torch.ones_like(base)
    if exponent < 1:
        base = base.clamp(min=torch.finfo(base.dtype).tiny)
    return base**exponent


def _check_gamma(gamma: float) -> None:
    if gamma < 0:
        raise ValueError(f"gamma must be 0 or more, found {gamma}")
