"""Equalization loss v2: cross-entropy whose weights balance the positive and the negative gradients of each class.

The background and the objects of all other classes are negatives of a class. For a rare class, their gradients outweigh
those of its few objects. Equalization loss v2 sums both gradients over training, and reduces the negatives and raises
the positives of a class until the two sums are of similar size.

Shape suffixes: N batch, A anchors, K classes; the first row of a (2, K) tensor belongs to positives, the second to
negatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from retinanet.config import LossConfig
from retinanet.losses.base import ClassificationLoss
from retinanet.losses.cross_entropy import Reduction, float32_pair, reduce, sigmoid_cross_entropy
from retinanet.losses.gradient_norm import gradient_norms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from retinanet.types import AnchorTargets, HeadOutputs


def equalization_loss_v2(
    inputs: Tensor,
    targets: Tensor,
    positive_gradient: Tensor,
    negative_gradient: Tensor,
    alpha: float = LossConfig.eql_alpha,
    gamma: float = LossConfig.eql_gamma,
    mu: float = LossConfig.eql_mu,
    reduction: Reduction = "none",
) -> Tensor:
    """Return the equalization loss v2 of each logit.

    The formula is -q log p for y = 1 and -r log(1 - p) for y = 0, with p = sigmoid(inputs). The weights of a class
    follow from G = positive_gradient / negative_gradient, the ratio of its gradients summed over the earlier steps:
    r = f(G) and q = 1 + alpha (1 - f(G)), with f(G) = 1 / (1 + exp(-gamma (G - mu))). No gradient flows into the
    weights. Without a negative gradient, as before the first step, f(G) is 1, and the loss is cross-entropy.

    For example, G = mu gives f = 0.5, so q = 3 and r = 0.5. G = 0, a class without objects so far, gives q = 5.0 and
    r = 0.00007.

    Source: Tan et al., arXiv 2012.08548, "gradient guided reweighing", with alpha = 4, gamma = 12 and mu = 0.8.

    Args:
        inputs: logits, any shape and float type.
        targets: targets in [0, 1], in the shape of the inputs; a size of 1 broadcasts, and so does a scalar. An example
            with a target above 0 is positive.
        positive_gradient: sum of the weighted gradient norms q |p - t| of the positives of each class, 0 or more. It
            must broadcast to the inputs: (K,) if their last dimension runs over the classes.
        negative_gradient: sum of the weighted gradient norms r p of the negatives of each class, in the same shape.
        alpha: largest addition to the weight of the positives.
        gamma: steepness of f.
        mu: ratio G at which f is 0.5.
        reduction: "none" returns every loss, "mean" their mean, "sum" their sum.

    Returns:
        float32 (float64 for float64 inputs); in the shape of the inputs for "none", else a scalar.

    Raises:
        ValueError: the targets have another shape, or `reduction` is another word.
    """
    x, t = float32_pair(inputs, targets)
    gradients = (positive_gradient.to(x.dtype), negative_gradient.to(x.dtype))
    q, r = _weights(*gradients, alpha=alpha, gamma=gamma, mu=mu)
    return reduce(torch.where(t > 0, q, r) * sigmoid_cross_entropy(x, t), reduction)


@dataclass(frozen=True, kw_only=True)
class EqualizationLossV2(ClassificationLoss):
    """Classification loss for training: `equalization_loss_v2` with the gradients of this training run.

    The paper describes classifiers of two-stage detectors. Here the loss is computed for all anchors that are not
    ignored, without focal loss and without the paper's additional output for objects of any class. The gradients that
    a step adds are those after the weights of the step, summed over all ranks.

    Args:
        eql_alpha: largest addition to the weight of the positives, 0 or more.
        eql_gamma: steepness of the function from the ratio of the gradients to the weights, above 0.
        eql_mu: ratio of the gradients at which the weight of the negatives is 0.5.
    """

    label: ClassVar[str] = "equalization v2"
    eql_alpha: float = LossConfig.eql_alpha
    eql_gamma: float = LossConfig.eql_gamma
    eql_mu: float = LossConfig.eql_mu

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the equalization loss of each logit. See `ClassificationLoss.__call__`."""
        if not self.state:
            return sigmoid_cross_entropy(logits, targets)
        positive_K, negative_K = self.state["earlier_2K"].to(logits.device, non_blocking=True)
        if classes is not None:
            positive_K, negative_K = positive_K[classes], negative_K[classes]
        return equalization_loss_v2(
            logits, targets, positive_K, negative_K, alpha=self.eql_alpha, gamma=self.eql_gamma, mu=self.eql_mu
        )

    @torch.no_grad()
    def update(
        self,
        parts: Sequence[tuple[HeadOutputs, AnchorTargets]],
        *,
        target: float,
        sum_over_ranks: Callable[[Tensor], Tensor],
    ) -> None:
        """Add the gradients of the previous step to those of all earlier steps, and store those of this step."""
        sums_2K = torch.stack([_gradients_2K(*part, target) for part in parts]).sum(dim=0)
        earlier_2K = torch.zeros_like(sums_2K)
        for value in self.state.values():
            earlier_2K += value.to(earlier_2K, non_blocking=True)
        weights = _weights(*earlier_2K, alpha=self.eql_alpha, gamma=self.eql_gamma, mu=self.eql_mu)
        # A NaN would stay in the sums forever, also if the step is skipped.
        step_2K = sum_over_ranks(sums_2K * torch.stack(weights)).nan_to_num(nan=0.0)
        self.state.update(earlier_2K=earlier_2K, step_2K=step_2K)

    def settings(self) -> tuple[str, ...]:
        """Return alpha, gamma and mu as text for labels: "alpha 4", "gamma 12", "mu 0.8"."""
        return (f"alpha {self.eql_alpha:g}", f"gamma {self.eql_gamma:g}", f"mu {self.eql_mu:g}")


def _weights(positive_K: Tensor, negative_K: Tensor, *, alpha: float, gamma: float, mu: float) -> tuple[Tensor, Tensor]:
    """Return the weight q of the positives and r of the negatives of each class."""
    ratio_K = torch.where(negative_K > 0, positive_K / negative_K, torch.inf)
    r_K = torch.sigmoid(gamma * (ratio_K - mu)).detach()
    return 1 + alpha * (1 - r_K), r_K


def _gradients_2K(outputs: HeadOutputs, targets: AnchorTargets, target: float) -> Tensor:
    """Return the sums of the gradient norms of the positives and of the negatives of each class, unweighted."""
    norm_NAK, positive_NAK = gradient_norms(outputs, targets, target)
    positive_K = norm_NAK.masked_fill(~positive_NAK, 0.0).sum(dim=(0, 1))
    negative_K = norm_NAK.masked_fill(positive_NAK | targets.ignored_NA.unsqueeze(-1), 0.0).sum(dim=(0, 1))
    return torch.stack([positive_K, negative_K])
