"""GHM-C: cross-entropy divided by the number of examples with a similar gradient norm.

The gradient norm of an example is |p - t|, from 0 (easy) to 1 (misclassified with certainty). Most examples of a dense
detector are easy negatives with a norm near 0. A converged model also has many examples with a norm near 1, which
resemble outliers. GHM-C (gradient harmonizing mechanism, classification) gives the examples of each interval of norms
the same total weight, so neither group dominates.

Shape suffixes: N batch, A anchors, K classes, M intervals of the gradient norm (bins).
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


def ghm_c_loss(inputs: Tensor, targets: Tensor, counts: Tensor, reduction: Reduction = "none") -> Tensor:
    """Return the GHM-C loss of each logit.

    The formula is CE / GD(g), with the cross-entropy CE, the gradient norm g = |p - t|, p = sigmoid(inputs), and the
    gradient density GD(g) = M R(g). R(g) is the number of examples of the batch in the interval
    [(j - 1) / M, j / M) that contains g; M is the number of intervals. No gradient flows into GD. The sum over the
    batch is the loss of the paper: the mean cross-entropy of each interval, added up and divided by M.

    For example, 10 intervals and 4 examples in the interval [0, 0.1) give GD = 40 for p = 0.05 and t = 0, and the loss
    0.05129 / 40 = 0.00128.

    Source: Li et al., arXiv 1811.05181, "GHM-C loss" and "unit region approximation", with beta = N / GD and
    the loss sum(beta CE) / N.

    Args:
        inputs: logits, any shape and float type.
        targets: targets in [0, 1], in the shape of the inputs; a size of 1 broadcasts, and so does a scalar.
        counts: number of examples in each interval, (M,), above 0 where an example lies; a moving average is possible.
        reduction: "none" returns every loss, "mean" their mean, "sum" their sum.

    Returns:
        float32 (float64 for float64 inputs); in the shape of the inputs for "none", else a scalar.

    Raises:
        ValueError: the targets have another shape, or `reduction` is another word.
    """
    x, t = float32_pair(inputs, targets)
    with torch.no_grad():
        weight_M = (len(counts) * counts.to(x.dtype)).reciprocal()
        weight = weight_M[_interval((torch.sigmoid(x) - t).abs(), len(counts))]
    return reduce(weight * sigmoid_cross_entropy(x, t), reduction)


@dataclass(frozen=True, kw_only=True)
class GHMC(ClassificationLoss):
    """Classification loss for training: `ghm_c_loss` with a moving average of the counts.

    The counts of a step are those of all anchors that are not ignored, on all ranks. The average is S <- momentum S +
    (1 - momentum) R, with the counts R of the step; it starts with the counts of the first step. `DetectionLoss`
    divides by the number of positives P. This class multiplies by P over all ranks, so with the normaliser "batch" the
    loss of the batch is that of the paper. Before the first step, the loss is cross-entropy.

    Args:
        ghm_bins: number M of intervals, above 0.
        ghm_momentum: weight of the earlier steps in the average of the counts, in [0, 1); 0 uses the step alone.
    """

    label: ClassVar[str] = "GHM-C"
    depends_on_batch: ClassVar[bool] = True
    ghm_bins: int = LossConfig.ghm_bins
    ghm_momentum: float = LossConfig.ghm_momentum

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the GHM-C loss of each logit, times the number of positives. See `ClassificationLoss.__call__`."""
        if not self.state:
            return sigmoid_cross_entropy(logits, targets)
        counts_M = self.state["counts_M"].to(logits.device, non_blocking=True)
        positives = self.state["positives"].to(logits.device, non_blocking=True)
        # Within a training step, an interval with an example has at least this count. Another batch may use any.
        counts_M = counts_M.clamp(min=1 - self.ghm_momentum)
        return ghm_c_loss(logits, targets, counts_M / positives)

    @torch.no_grad()
    def update(
        self,
        parts: Sequence[tuple[HeadOutputs, AnchorTargets]],
        *,
        target: float,
        sum_over_ranks: Callable[[Tensor], Tensor],
    ) -> None:
        """Add the counts of this step to the average, and store the number of positives of the step."""
        counts = torch.stack([self._counts(*part, target) for part in parts])
        numbers = sum_over_ranks(counts.sum(dim=0)).float()
        counts_M, positives = numbers[:-1], numbers[-1].clamp(min=1)
        if self.state:
            counts_M = torch.lerp(counts_M, self.state["counts_M"].to(counts_M, non_blocking=True), self.ghm_momentum)
        self.state.update(counts_M=counts_M, positives=positives)

    def _counts(self, outputs: HeadOutputs, targets: AnchorTargets, target: float) -> Tensor:
        """Return the number of examples in each interval, and last the number of positives, (M + 1,) int64."""
        norm_NAK, _ = gradient_norms(outputs, targets, target)
        interval_NAK = _interval(norm_NAK, self.ghm_bins).masked_fill(targets.ignored_NA.unsqueeze(-1), -1)
        # A GPU would be waited for by bincount. These sums have a fixed order, too.
        counts = [(interval_NAK == m).sum() for m in range(self.ghm_bins)]
        return torch.stack([*counts, targets.positive_NA.sum()])

    def settings(self) -> tuple[str, ...]:
        """Return the number of intervals and the momentum as text for labels: "10 bins", "momentum 0.75"."""
        return (f"{self.ghm_bins} bins", f"momentum {self.ghm_momentum:g}")


def _interval(norm: Tensor, count: int) -> Tensor:
    """Return the index of the interval of each gradient norm, int32: j for j / count <= norm < (j + 1) / count."""
    edges = torch.arange(1, count, device=norm.device, dtype=norm.dtype) / count
    return torch.bucketize(norm, edges, right=True, out_int32=True)
