"""Hard example mining: which anchors of each image count, the others are thrown away.

What focal loss replaces. Shape suffixes: N batch, A anchors, C candidates of one image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from retinanet.config import LossConfig
from retinanet.losses.base import ClassificationLoss
from retinanet.losses.cross_entropy import sigmoid_cross_entropy
from retinanet.ops.nms import nms

if TYPE_CHECKING:
    from torch import Tensor

    from retinanet.types import AnchorTargets, HeadOutputs


def hard_negative_mining(loss_NA: Tensor, positive_NA: Tensor, ignored_NA: Tensor, *, ratio: float = 3.0) -> Tensor:
    """Return keep_NA: all positives, and of each image's negatives those with the highest loss, `ratio` per positive.

    An image without positives keeps as many negatives as one with a single positive: it would teach nothing otherwise.
    Source: SSD (Liu et al., arXiv 1512.02325, section 2.2 "Hard negative mining"), 3:1.

    Args:
        loss_NA: of every anchor, summed over the classes.
        positive_NA: bool.
        ignored_NA: bool, never kept.
        ratio: negatives for each positive of the image, above 0.
    """
    negative_NA = ~positive_NA & ~ignored_NA
    # -1 lies below every loss, so that what is no negative comes last.
    order_NA = loss_NA.detach().masked_fill(~negative_NA, -1.0).argsort(dim=1, descending=True, stable=True)
    allowed_N = (ratio * positive_NA.sum(dim=1).clamp(min=1)).floor()
    rank_A = torch.arange(loss_NA.shape[1], device=loss_NA.device)
    hardest_NA = torch.zeros_like(positive_NA).scatter(1, order_NA, rank_A < allowed_N[:, None])
    return positive_NA | (hardest_NA & negative_NA)


def ohem(
    loss_NA: Tensor,
    positive_NA: Tensor,
    ignored_NA: Tensor,
    anchors_A4: Tensor,
    *,
    examples: int = 512,
    nms_threshold: float = 0.7,
    ratio: float | None = None,
) -> Tensor:
    """Return keep_NA: online hard example mining. Non-maximum suppression of the anchors by their losses, then the top.

    Source: Shrivastava et al., arXiv 1604.03540, as arXiv 1708.02002, section 5.1 "OHEM" takes it to one-stage
    detectors; there N is 128, 256 or 512, the threshold 0.5 or 0.7, with and without 1:3.

    Args:
        loss_NA: of every anchor, summed over the classes.
        positive_NA: bool.
        ignored_NA: bool, neither kept nor suppressing others.
        anchors_A4: xyxy, input pixels.
        examples: N, how many anchors of an image are kept at the most.
        nms_threshold: of two anchors with a higher IoU the one with the higher loss stays.
        ratio: keep no more than so many negatives for each positive that is kept (for one, where there is none);
            None: positives and negatives alike.
    """
    rows = []
    for loss_A, positive_A, ignored_A in zip(loss_NA.detach(), positive_NA, ignored_NA, strict=True):
        candidates_C = torch.nonzero(~ignored_A).squeeze(1)
        order_C = candidates_C[loss_A[candidates_C].argsort(descending=True, stable=True)]
        kept_A = torch.zeros_like(positive_A)
        kept_A[_hardest(loss_A, positive_A, anchors_A4, order_C, examples, nms_threshold, ratio)] = True
        rows.append(kept_A)
    return torch.stack(rows)


@dataclass(frozen=True, kw_only=True)
class HardNegativeMining(ClassificationLoss):
    """Cross-entropy of the anchors that `hard_negative_mining` keeps, as a loss to train with."""

    label: ClassVar[str] = "hard negative mining"
    mines: ClassVar[bool] = True
    negatives_per_positive: float = LossConfig.negatives_per_positive

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the cross-entropy of each logit, before mining."""
        return sigmoid_cross_entropy(logits, targets)

    def keep(self, loss_NA: Tensor, outputs: HeadOutputs, targets: AnchorTargets) -> Tensor:
        """Return keep_NA: the positives and the hardest negatives."""
        ratio = self.negatives_per_positive
        return hard_negative_mining(loss_NA, targets.positive_NA, targets.ignored_NA, ratio=ratio)


@dataclass(frozen=True, kw_only=True)
class Ohem(ClassificationLoss):
    """Cross-entropy of the anchors that `ohem` keeps, as a loss to train with."""

    label: ClassVar[str] = "OHEM"
    mines: ClassVar[bool] = True
    ohem_examples: int = LossConfig.ohem_examples
    ohem_nms: float = LossConfig.ohem_nms
    ohem_balanced: bool = LossConfig.ohem_balanced
    negatives_per_positive: float = LossConfig.negatives_per_positive

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the cross-entropy of each logit, before mining."""
        return sigmoid_cross_entropy(logits, targets)

    def keep(self, loss_NA: Tensor, outputs: HeadOutputs, targets: AnchorTargets) -> Tensor:
        """Return keep_NA: the hardest anchors, overlapping ones suppressed."""
        return ohem(
            loss_NA,
            targets.positive_NA,
            targets.ignored_NA,
            outputs.anchors_A4,
            examples=self.ohem_examples,
            nms_threshold=self.ohem_nms,
            ratio=self.negatives_per_positive if self.ohem_balanced else None,
        )

    def settings(self) -> tuple[str, ...]:
        """Return how many anchors are kept, as text."""
        return (f"{self.ohem_examples} anchors" + (", 1:3" if self.ohem_balanced else ""),)


def _hardest(
    loss_A: Tensor,
    positive_A: Tensor,
    anchors_A4: Tensor,
    order_C: Tensor,
    examples: int,
    nms_threshold: float,
    ratio: float | None,
) -> Tensor:
    """Return the numbers of one image's kept anchors.

    What greedy suppression keeps of the hardest ones does not depend on easier ones: a growing head of the list is
    looked at until enough of it is left, rather than all 100,000 anchors.
    """
    most_positives = examples if ratio is None else max(1, int(examples / (1 + ratio)))
    length = 4 * examples
    while True:
        head_C = order_C[:length]
        left = head_C[nms(anchors_A4[head_C].float(), loss_A[head_C].float(), threshold=nms_threshold)]
        positives, negatives = left[positive_A[left]], left[~positive_A[left]]
        everything = len(head_C) == len(order_C)
        if ratio is None:
            if everything or len(left) >= examples:
                return left[:examples]
        elif everything or (len(positives) >= most_positives and len(negatives) >= examples - most_positives):
            positives = positives[:most_positives]
            most_negatives = min(examples - len(positives), int(ratio * max(1, len(positives))))
            return torch.cat([positives, negatives[:most_negatives]])
        length *= 4
