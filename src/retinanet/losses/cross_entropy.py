"""Cross-entropy on logits: plain, alpha-balanced and weighted. Focal loss is compared with these losses.

Notation: x is the logit of one example (an anchor and a class), p = sigmoid(x) is the predicted probability of the
class, y is 1 for a positive and 0 for a negative example, t is a target in [0, 1].

Cross-entropy is softplus(-x) for y = 1 and softplus(x) for y = 0, with softplus(z) = log(1 + exp(z)). This module and
`focal` never compute the difference 1 - p, which would lose all digits near p = 1. So values and gradients are exact
for large logits, too.
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
from retinanet.ops.focal_terms import FocalTerms

Reduction = Literal["none", "mean", "sum"]


def sigmoid_cross_entropy(inputs: Tensor, targets: Tensor, reduction: Reduction = "none") -> Tensor:
    """Return the binary cross-entropy of each logit.

    The formula is -log p for y = 1 and -log(1 - p) for y = 0, with p = sigmoid(inputs). A soft target t gives
    -t log p - (1 - t) log(1 - p). At p = 0.5 the loss is log 2 = 0.693.

    Source: Lin et al., arXiv 1708.02002, equation 1.

    Args:
        inputs: logits, any shape and float type.
        targets: targets in [0, 1], in the shape of the inputs; a size of 1 broadcasts, and so does a scalar.
        reduction: "none" returns every loss, "mean" their mean, "sum" their sum.

    Returns:
        float32 (float64 for float64 inputs); in the shape of the inputs for "none", else a scalar.

    Raises:
        ValueError: the targets have another shape, or `reduction` is another word.
    """
    x, t = float32_pair(inputs, targets)
    return reduce(torch.lerp(F.softplus(x), F.softplus(-x), t), reduction)


def balanced_cross_entropy(
    inputs: Tensor, targets: Tensor, alpha: float | Tensor = LossConfig.alpha, reduction: Reduction = "none"
) -> Tensor:
    """Return the alpha-balanced cross-entropy of each logit.

    The formula is -alpha log p for y = 1 and -(1 - alpha) log(1 - p) for y = 0, with p = sigmoid(inputs). Alpha
    balances positives against negatives, but not hard examples against easy ones.

    Source: Lin et al., arXiv 1708.02002, equation 3.

    Args:
        inputs: logits, any shape and float type.
        targets: targets in [0, 1], in the shape of the inputs; a size of 1 broadcasts, and so does a scalar.
        alpha: weight of the positives, in [0, 1]. A tensor must broadcast to the inputs: (K,) is one alpha per class.
        reduction: "none" returns every loss, "mean" their mean, "sum" their sum.

    Returns:
        float32 (float64 for float64 inputs); in the shape of the inputs for "none", else a scalar.

    Raises:
        TypeError: alpha is neither a number nor a tensor.
        ValueError: the targets or alpha have another shape, alpha is outside [0, 1], or `reduction` is another word.
    """
    check_alpha(alpha, inputs)
    return reduce(balance(in_float32(targets), alpha) * sigmoid_cross_entropy(inputs, targets), reduction)


def weighted_cross_entropy(
    inputs: Tensor,
    targets: Tensor,
    negative_weight: float = LossConfig.negative_weight,
    reduction: Reduction = "none",
) -> Tensor:
    """Return the cross-entropy of each logit, with a smaller weight for the negatives.

    The formula is -log p for y = 1 and -w log(1 - p) for y = 0, with p = sigmoid(inputs) and w = `negative_weight`.

    Source: YOLO (Redmon et al., arXiv 1506.02640, section 2.2) uses the weight 0.5 for boxes without an object.

    Args:
        inputs: logits, any shape and float type.
        targets: targets in [0, 1], in the shape of the inputs; a size of 1 broadcasts, and so does a scalar.
        negative_weight: weight w of the negatives, 0 or more.
        reduction: "none" returns every loss, "mean" their mean, "sum" their sum.

    Returns:
        float32 (float64 for float64 inputs); in the shape of the inputs for "none", else a scalar.

    Raises:
        ValueError: the targets have another shape, or `reduction` is another word.
    """
    x, t = float32_pair(inputs, targets)
    return reduce(t * F.softplus(-x) + negative_weight * (1 - t) * F.softplus(x), reduction)


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(ClassificationLoss):
    """Classification loss for training: `sigmoid_cross_entropy`, in which every example has the weight 1."""

    label: ClassVar[str] = "cross-entropy"

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the cross-entropy of each logit. See `ClassificationLoss.__call__`."""
        return sigmoid_cross_entropy(logits, targets)

    def fused_terms(self, logits_NAK: Tensor, target: float) -> FocalTerms | None:
        """Return the parameters of the fused focal-loss kernels: both weights 1, gamma 0."""
        one_K = logits_NAK.new_ones(logits_NAK.shape[-1], dtype=torch.float32)
        return FocalTerms(positive_weight_K=one_K, negative_weight_K=one_K, gamma=0.0, target=target)


@dataclass(frozen=True, kw_only=True)
class BalancedCrossEntropy(ClassificationLoss):
    """Classification loss for training: `balanced_cross_entropy` with a fixed alpha.

    Args:
        alpha: weight of the positives, in [0, 1]; the negatives have the weight 1 - alpha.
        class_alpha: one alpha per class, in the order of the class ids, instead of `alpha`. Empty: use `alpha`.
    """

    label: ClassVar[str] = "alpha-balanced cross-entropy"
    alpha: float = LossConfig.alpha
    class_alpha: tuple[float, ...] = ()

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the alpha-balanced cross-entropy of each logit. See `ClassificationLoss.__call__`."""
        return balanced_cross_entropy(logits, targets, alpha=self.alpha_of(logits, classes))

    def fused_terms(self, logits_NAK: Tensor, target: float) -> FocalTerms | None:
        """Return the parameters of the fused focal-loss kernels, with gamma 0."""
        return self.focal_terms(logits_NAK, target, gamma=0.0)

    def focal_terms(self, logits_NAK: Tensor, target: float, *, gamma: float) -> FocalTerms:
        """Return the parameters of focal loss with this loss's alpha. Gamma 0 is alpha-balanced cross-entropy.

        Args:
            logits_NAK: logits whose class count and device the parameters match.
            target: target of a positive example: 1 minus the label smoothing.
            gamma: focusing parameter, 0 or more.
        """
        alpha_K = _float32(self.class_alpha or (self.alpha,)).expand(logits_NAK.shape[-1])
        positive_K = alpha_K * target + (1 - alpha_K) * (1 - target)
        weights_2K = torch.stack([positive_K, 1 - alpha_K]).to(logits_NAK.device, non_blocking=True)
        return FocalTerms(positive_weight_K=weights_2K[0], negative_weight_K=weights_2K[1], gamma=gamma, target=target)

    def alpha_of(self, logits: Tensor, classes: Tensor | None) -> float | Tensor:
        """Return the weight of the positives: a number for all logits, or a tensor that broadcasts to the logits.

        Args:
            logits: class scores before the sigmoid, any shape.
            classes: int64 class id of each logit. None: the last dimension of `logits` runs over the classes.
        """
        if not self.class_alpha:
            return self.alpha
        alpha_K = _float32(self.class_alpha).to(logits.device, non_blocking=True)
        return alpha_K if classes is None else alpha_K[classes]


@dataclass(frozen=True, kw_only=True)
class WeightedCrossEntropy(ClassificationLoss):
    """Classification loss for training: `weighted_cross_entropy` with a fixed weight of the negatives.

    Args:
        negative_weight: weight of the negatives, 0 or more; the positives have the weight 1.
    """

    label: ClassVar[str] = "weighted cross-entropy"
    negative_weight: float = LossConfig.negative_weight

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the weighted cross-entropy of each logit. See `ClassificationLoss.__call__`."""
        return weighted_cross_entropy(logits, targets, negative_weight=self.negative_weight)

    def settings(self) -> tuple[str, ...]:
        """Return the weight of the negatives as text for labels: "negatives × 0.5"."""
        return (f"negatives × {self.negative_weight:g}",)


def in_float32(values: Tensor) -> Tensor:
    """Return the values in float32, or unchanged if they are float64.

    Losses are computed in float32 even if autocast gives them half-precision logits.
    """
    return values if values.dtype == torch.float64 else values.float()


def float32_pair(inputs: Tensor, targets: Tensor, name: str = "targets") -> tuple[Tensor, Tensor]:
    """Return logits and targets in float32 (see `in_float32`), after checking that each logit has its own target.

    Targets of another rank are refused: labels (N,) for logits (N, 1) would broadcast to (N, N), every logit with every
    label, and train towards the mean label.

    Args:
        inputs: logits, any shape.
        targets: tensor of the same rank whose sizes equal those of the inputs or are 1; or a scalar.
        name: name of the targets in the error message.

    Raises:
        ValueError: the targets have another shape.
    """
    if targets.ndim and not (targets.ndim == inputs.ndim and broadcasts(targets, inputs)):
        raise ValueError(
            f"{name}: expected the shape of the inputs, {tuple(inputs.shape)}, found {tuple(targets.shape)}. Reshape "
            f"the {name}, for example with {name}.unsqueeze(-1) or one_hot()"
        )
    x = in_float32(inputs)
    return x, targets.to(x.dtype)


def broadcasts(values: Tensor, inputs: Tensor) -> bool:
    """Return whether values broadcast to the shape of the inputs without changing this shape."""
    sizes = zip(reversed(values.shape), reversed(inputs.shape), strict=False)
    return values.ndim <= inputs.ndim and all(size in {1, required} for size, required in sizes)


def check_alpha(alpha: Any, inputs: Tensor, *, off: bool = False) -> None:
    """Raise an error if alpha is no weight of the positives for these logits.

    Args:
        alpha: weight of the positives: a number in [0, 1], or a tensor that broadcasts to the inputs.
        inputs: logits, any shape.
        off: whether -1 is allowed, which switches the weights off.

    Raises:
        TypeError: alpha is neither a number nor a tensor.
        ValueError: alpha is another number, or a tensor of another shape.
    """
    if isinstance(alpha, Tensor):
        if not broadcasts(alpha, inputs):
            raise ValueError(
                f"alpha: expected a shape that broadcasts to the inputs, {tuple(inputs.shape)}, such as one alpha per "
                f"class, found {tuple(alpha.shape)}"
            )
    elif not isinstance(alpha, Real):
        raise TypeError(
            f"alpha: expected a number or a tensor, found {type(alpha).__name__}: pass torch.tensor(alpha) for one "
            "alpha per class"
        )
    elif not (0 <= float(alpha) <= 1 or (off and alpha == -1)):
        raise ValueError(f"alpha: expected a number in [0, 1]{', or -1 for no weights' * off}, found {alpha}")


def balance(targets: Tensor, alpha: float | Tensor) -> Tensor:
    """Return alpha_t = alpha t + (1 - alpha) (1 - t): alpha for a target t of 1, 1 - alpha for a target of 0."""
    if isinstance(alpha, Tensor):
        return alpha * targets + (1 - alpha) * (1 - targets)
    return torch.add(alpha * targets, 1 - targets, alpha=1 - alpha)


def reduce(loss: Tensor, reduction: Reduction) -> Tensor:
    """Return the losses, their mean or their sum.

    Raises:
        ValueError: `reduction` is not "none", "mean" or "sum".
    """
    if reduction == "none":
        return loss
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    raise ValueError(f"reduction must be 'none', 'mean' or 'sum', found {reduction!r}")


def _float32(values: tuple[float, ...]) -> Tensor:
    """Return numbers as a CPU tensor. A copy of it to a GPU with `non_blocking` does not make the CPU wait."""
    return torch.tensor(values, dtype=torch.float32, device="cpu")
