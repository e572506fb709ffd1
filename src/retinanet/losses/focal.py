"""Focal loss and two losses derived from it: quality focal loss and varifocal loss.

Nearly all examples of a dense detector are background, and most of them are easy: the network classifies them well
early in training. Their cross-entropies are small, but their sum exceeds the loss of the few objects. Focal loss
multiplies the cross-entropy of each example by (1 - p_t)^gamma, where p_t is the predicted probability of the true
answer: p for a positive, 1 - p for a negative. With gamma = 2, an example with p_t = 0.9 counts 100 times less.

Source: Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from retinanet.config import LossConfig
from retinanet.losses.base import ClassificationLoss
from retinanet.losses.cross_entropy import (
    BalancedCrossEntropy,
    Reduction,
    balance,
    check_alpha,
    float32_pair,
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
    """Return the focal loss of each logit.

    With p = sigmoid(inputs), the formula is -alpha (1 - p)^gamma log p for y = 1 (positive) and
    -(1 - alpha) p^gamma log(1 - p) for y = 0 (negative). Alpha balances positives against negatives. Gamma reduces the
    loss of examples that are classified well. A soft target t gives
    (alpha t + (1 - alpha) (1 - t)) (1 - p_t)^gamma (-t log p - (1 - t) log(1 - p)) with p_t = t p + (1 - t) (1 - p).

    For example, p = 0.9, y = 1, alpha = 0.75 and gamma = 2 give 0.75 x 0.01 x 0.10536 = 0.00079.

    This function is a drop-in for `torchvision.ops.sigmoid_focal_loss`: names, order and meaning of the arguments are
    equal, and so are value and gradient. It differs in the following ways.

    - The default of alpha is 0.75 (torchvision: 0.25).
    - Half-precision inputs give a float32 loss. The loss is finite and its gradient exact for logits of +-1e4.
    - Targets may have sizes of 1 that broadcast, or be a scalar. Targets of another rank are refused in both.
    - Alpha may be a tensor.
    - Gamma is one number of 0 or more. A tensor of several numbers, a negative number and NaN are refused.
    - `torch.jit.script` does not compile it; `torch.compile` does.

    Source: Lin et al., arXiv 1708.02002, equation 5.

    Args:
        inputs: logits, any shape and float type.
        targets: targets in [0, 1], in the shape of the inputs; a size of 1 broadcasts, and so does a scalar.
        alpha: weight of the positives, in [0, 1]. -1 switches the weights off. A tensor must broadcast to the inputs:
            (K,) is one alpha per class.
        gamma: focusing parameter, 0 or more; 0 gives alpha-balanced cross-entropy.
        reduction: "none" returns every loss, "mean" their mean, "sum" their sum.

    Returns:
        float32 (float64 for float64 inputs); in the shape of the inputs for "none", else a scalar.

    Raises:
        TypeError: alpha is neither a number nor a tensor, or gamma is no number.
        ValueError: the targets or alpha have another shape, alpha or gamma is outside its range, or `reduction` is
            another word.
    """
    _check_gamma(gamma)
    check_alpha(alpha, inputs, off=True)
    x, t = float32_pair(inputs, targets)
    minus_x = -x
    loss = torch.lerp(F.softplus(x), F.softplus(minus_x), t)  # cross-entropy
    if gamma > 0:
        # t sigmoid(-x) + (1 - t) sigmoid(x) is 1 - p_t. The difference itself would lose all digits near p_t = 1.
        loss = _power(torch.lerp(torch.sigmoid(x), torch.sigmoid(minus_x), t), gamma) * loss
    if isinstance(alpha, torch.Tensor) or alpha >= 0:
        loss = balance(t, alpha) * loss
    return reduce(loss, reduction)


def quality_focal_loss(
    inputs: Tensor, quality: Tensor, gamma: float = LossConfig.gamma, reduction: Reduction = "none"
) -> Tensor:
    """Return the quality focal loss of each logit: |q - p|^gamma (-q log p - (1 - q) log(1 - p)).

    Here p = sigmoid(inputs). The target q of a positive example is the IoU of the predicted box with the ground-truth
    box; the target of a negative example is 0. So the score learns how well the box fits. There is no alpha.

    Source: Li et al., Generalized Focal Loss, arXiv 2006.04388, equation 5, where gamma is called beta.

    Args:
        inputs: logits, any shape and float type.
        quality: target q in [0, 1], in the shape of the inputs; a size of 1 broadcasts, and so does a scalar. No
            gradient flows into it.
        gamma: focusing parameter, 0 or more.
        reduction: "none" returns every loss, "mean" their mean, "sum" their sum.

    Returns:
        float32 (float64 for float64 inputs); in the shape of the inputs for "none", else a scalar.

    Raises:
        TypeError: gamma is no number.
        ValueError: `quality` has another shape, gamma is not 0 or more, or `reduction` is another word.
    """
    _check_gamma(gamma)
    x, q = float32_pair(inputs, quality.detach(), "quality")
    distance = (q * torch.sigmoid(-x) - (1 - q) * torch.sigmoid(x)).abs()  # |q - p|, exact for large logits
    return reduce(_power(distance, gamma) * sigmoid_cross_entropy(x, q), reduction)


def varifocal_loss(
    inputs: Tensor,
    quality: Tensor,
    alpha: float = LossConfig.alpha,
    gamma: float = LossConfig.gamma,
    reduction: Reduction = "none",
) -> Tensor:
    """Return the varifocal loss of each logit.

    The formula is q (-q log p - (1 - q) log(1 - p)) for q > 0 and -alpha p^gamma log(1 - p) for q = 0, with
    p = sigmoid(inputs). The target q of a positive example is the IoU of the predicted box with the ground-truth box;
    the target of a negative example is 0. Only negatives are reduced by p^gamma. Positives have the weight q.

    Source: Zhang et al., VarifocalNet, arXiv 2008.13367, equation 2, with alpha = 0.75 and gamma = 2.

    Args:
        inputs: logits, any shape and float type.
        quality: target q in [0, 1], in the shape of the inputs; a size of 1 broadcasts, and so does a scalar. No
            gradient flows into it.
        alpha: weight of the negatives. In focal loss, alpha is the weight of the positives.
        gamma: focusing parameter of the negatives, 0 or more.
        reduction: "none" returns every loss, "mean" their mean, "sum" their sum.

    Returns:
        float32 (float64 for float64 inputs); in the shape of the inputs for "none", else a scalar.

    Raises:
        TypeError: gamma is no number.
        ValueError: `quality` has another shape, gamma is not 0 or more, or `reduction` is another word.
    """
    _check_gamma(gamma)
    x, q = float32_pair(inputs, quality.detach(), "quality")
    weight = torch.where(q > 0, q, alpha * _power(torch.sigmoid(x), gamma))
    return reduce(weight * sigmoid_cross_entropy(x, q), reduction)


@dataclass(frozen=True, kw_only=True)
class FocalLoss(BalancedCrossEntropy):
    """Classification loss for training: `sigmoid_focal_loss` with fixed alpha and gamma. The default of `retinanet`.

    With alpha = 0.75 and gamma = 2, examples rank in this order of loss: hard positive, hard negative, easy positive,
    easy negative.

    Args:
        alpha: weight of the positives, in [0, 1]; the negatives have the weight 1 - alpha.
        class_alpha: one alpha per class, in the order of the class ids, instead of `alpha`. Empty: use `alpha`.
        gamma: focusing parameter, 0 or more; 0 gives alpha-balanced cross-entropy.
    """

    label: ClassVar[str] = "focal"
    gamma: float = LossConfig.gamma

    @property
    def focusing(self) -> float:
        """Return gamma."""
        return self.gamma

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the focal loss of each logit. See `ClassificationLoss.__call__`."""
        return sigmoid_focal_loss(logits, targets, alpha=self.alpha_of(logits, classes), gamma=self.gamma)

    def fused_terms(self, logits_NAK: Tensor, target: float) -> FocalTerms | None:
        """Return the parameters of the fused focal-loss kernels."""
        return self.focal_terms(logits_NAK, target, gamma=self.gamma)


@dataclass(frozen=True, kw_only=True)
class QualityFocalLoss(ClassificationLoss):
    """Classification loss for training: `quality_focal_loss` with a fixed gamma.

    Args:
        gamma: focusing parameter, 0 or more.
    """

    label: ClassVar[str] = "quality focal"
    target: ClassVar[Literal["one", "iou"]] = "iou"
    gamma: float = LossConfig.gamma

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the quality focal loss of each logit. See `ClassificationLoss.__call__`."""
        return quality_focal_loss(logits, targets, gamma=self.gamma)


@dataclass(frozen=True, kw_only=True)
class VarifocalLoss(ClassificationLoss):
    """Classification loss for training: `varifocal_loss` with fixed alpha and gamma.

    Args:
        alpha: weight of the negatives.
        gamma: focusing parameter of the negatives, 0 or more.
    """

    label: ClassVar[str] = "varifocal"
    target: ClassVar[Literal["one", "iou"]] = "iou"
    alpha: float = LossConfig.alpha
    gamma: float = LossConfig.gamma

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the varifocal loss of each logit. See `ClassificationLoss.__call__`."""
        return varifocal_loss(logits, targets, alpha=self.alpha, gamma=self.gamma)


def _power(base: Tensor, exponent: float) -> Tensor:
    """Return base^exponent for a base in [0, 1], with a finite gradient at base 0.

    For an exponent between 0 and 1, the exact gradient at base 0 is infinite, so the base is clamped to the smallest
    normal number. The focal loss of such an example is smaller still, because its cross-entropy is about the base.
    """
    if exponent == 0:
        return torch.ones_like(base)
    if exponent < 1:
        base = base.clamp(min=torch.finfo(base.dtype).tiny)
    return base**exponent


def _check_gamma(gamma: Any) -> None:
    if not isinstance(gamma, Real) and not (isinstance(gamma, Tensor) and gamma.ndim == 0):
        found = f"a tensor of shape {tuple(gamma.shape)}" if isinstance(gamma, Tensor) else type(gamma).__name__
        raise TypeError(f"gamma: expected one number, found {found}")
    if not float(gamma) >= 0:  # NaN, too: no comparison with NaN holds
        raise ValueError(f"gamma must be 0 or more, found {gamma}")
