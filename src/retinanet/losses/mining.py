"""Hard example mining: select the anchors of each image with the highest losses and drop all others.

Focal loss replaces this method: it keeps every anchor and reduces the loss of easy ones.
Shape suffixes: N batch, A anchors, F first anchors of an image by falling loss.
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
    """Return keep_NA, bool: all positives, and the negatives of each image with the highest losses.

    An image with P positives keeps `ratio` x P negatives, rounded down. An image without positives keeps as many
    negatives as an image with one positive; otherwise it would contribute no loss.

    Source: SSD (Liu et al., arXiv 1512.02325, section 2.2 "Hard negative mining"), with the ratio 3.

    Args:
        loss_NA: loss of each anchor, summed over the classes.
        positive_NA: bool, positive anchors.
        ignored_NA: bool, ignored anchors, which are never kept.
        ratio: number of negatives per positive of the image, above 0.

    Raises:
        TypeError: a mask is not bool.
        ValueError: the shapes differ.
    """
    _check_masks(loss_NA, positive_NA=positive_NA, ignored_NA=ignored_NA)
    negative_NA = ~positive_NA & ~ignored_NA
    # -1 is below every loss, so all other anchors are sorted behind the negatives.
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
    """Return keep_NA, bool: the anchors of each image that online hard example mining (OHEM) selects.

    Non-maximum suppression with the losses as scores removes anchors that overlap an anchor with a higher loss. The
    `examples` anchors with the highest losses are kept of the rest. With a ratio, positives and negatives are kept
    separately.

    Source: Shrivastava et al., arXiv 1604.03540; for one-stage detectors Lin et al., arXiv 1708.02002, section 5.1
    "OHEM", with 128, 256 or 512 anchors, the IoU thresholds 0.5 and 0.7, without a ratio and with the ratio 3.

    Args:
        loss_NA: loss of each anchor, summed over the classes.
        positive_NA: bool, positive anchors.
        ignored_NA: bool, ignored anchors, which are never kept and suppress no other anchor.
        anchors_A4: anchors, xyxy, input pixels.
        examples: largest number of kept anchors of an image.
        nms_threshold: IoU above which the anchor with the lower loss is suppressed.
        ratio: largest number of kept negatives per kept positive. An image without positives keeps as many negatives as
            an image with one positive. None: the losses alone decide.

    Raises:
        TypeError: a mask is not bool.
        ValueError: the shapes differ.
    """
    _check_masks(loss_NA, positive_NA=positive_NA, ignored_NA=ignored_NA)
    # -inf is below every loss, so the ignored anchors are sorted behind all others.
    loss_NA = loss_NA.detach().masked_fill(ignored_NA, -torch.inf)
    order_NA = loss_NA.argsort(dim=1, descending=True, stable=True)
    positives_N1 = positive_NA.sum(dim=1, keepdim=True)
    kept: dict[int, Tensor] = {}
    length = 4 * examples
    # Suppression of the first anchors does not depend on later ones. So only the first anchors are suppressed, and they
    # become four times more until they are enough.
    while True:
        first_NF = order_NA[:, :length]
        loss_NF, positive_NF = loss_NA.gather(1, first_NF), positive_NA.gather(1, first_NF)
        columns = (loss_NF, positive_NF, positives_N1.expand_as(loss_NF))
        rows_NF7 = torch.cat([anchors_A4[first_NF].float(), torch.stack([c.float() for c in columns], dim=2)], dim=2)
        if length == 4 * examples:
            rows_NF7 = rows_NF7.cpu()  # the only wait for a GPU, unless an image needs more anchors
        for n in set(range(len(rows_NF7))) - kept.keys():
            kept_n = _hardest_anchors(rows_NF7[n], length >= order_NA.shape[1], examples, nms_threshold, ratio)
            if kept_n is not None:
                kept[n] = kept_n.cpu()
        if len(kept) == len(rows_NF7):
            break
        length *= 4
    kept_NF = torch.zeros(first_NF.shape, dtype=torch.bool, device="cpu")
    for n, index in kept.items():
        kept_NF[n, index] = True
    kept_NF = kept_NF.to(loss_NA.device, non_blocking=True)
    return torch.zeros_like(positive_NA).scatter(1, first_NF, kept_NF)


@dataclass(frozen=True, kw_only=True)
class HardNegativeMining(ClassificationLoss):
    """Classification loss for training: cross-entropy of the anchors that `hard_negative_mining` keeps.

    Args:
        negatives_per_positive: number of kept negatives per positive of an image, above 0.
    """

    label: ClassVar[str] = "hard negative mining"
    mines: ClassVar[bool] = True
    negatives_per_positive: float = LossConfig.negatives_per_positive

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the cross-entropy of each logit; `keep` selects the anchors. See `ClassificationLoss.__call__`."""
        return sigmoid_cross_entropy(logits, targets)

    def keep(self, loss_NA: Tensor, outputs: HeadOutputs, targets: AnchorTargets) -> Tensor:
        """Return keep_NA, bool: the positives and the negatives with the highest losses."""
        ratio = self.negatives_per_positive
        return hard_negative_mining(loss_NA, targets.positive_NA, targets.ignored_NA, ratio=ratio)


@dataclass(frozen=True, kw_only=True)
class Ohem(ClassificationLoss):
    """Classification loss for training: cross-entropy of the anchors that `ohem` keeps.

    Args:
        ohem_examples: largest number of kept anchors of an image.
        ohem_nms: IoU of two anchors above which the anchor with the lower loss is dropped.
        ohem_balanced: whether `negatives_per_positive` limits the number of kept negatives.
        negatives_per_positive: largest number of kept negatives per kept positive, if `ohem_balanced`.
    """

    label: ClassVar[str] = "OHEM"
    mines: ClassVar[bool] = True
    ohem_examples: int = LossConfig.ohem_examples
    ohem_nms: float = LossConfig.ohem_nms
    ohem_balanced: bool = LossConfig.ohem_balanced
    negatives_per_positive: float = LossConfig.negatives_per_positive

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the cross-entropy of each logit; `keep` selects the anchors. See `ClassificationLoss.__call__`."""
        return sigmoid_cross_entropy(logits, targets)

    def keep(self, loss_NA: Tensor, outputs: HeadOutputs, targets: AnchorTargets) -> Tensor:
        """Return keep_NA, bool: the anchors with the highest losses that do not overlap one another."""
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
        """Return the number of kept anchors and the ratio as text for labels: "512 anchors, 1:3"."""
        return (
            f"{self.ohem_examples} anchors" + (f", 1:{self.negatives_per_positive:g}" if self.ohem_balanced else ""),
        )


def _check_masks(loss_NA: Tensor, **masks: Tensor) -> None:
    for name, mask_NA in masks.items():
        if mask_NA.dtype != torch.bool:
            raise TypeError(f"{name}: expected bool, found {mask_NA.dtype}")
        if mask_NA.shape != loss_NA.shape:
            raise ValueError(
                f"{name}: expected the shape of the losses, {tuple(loss_NA.shape)}, found {tuple(mask_NA.shape)}"
            )


def _hardest_anchors(
    rows_F7: Tensor, everything: bool, examples: int, nms_threshold: float, ratio: float | None
) -> Tensor | None:
    """Return the indices of the anchors that OHEM keeps of one image, int64; None if more anchors are necessary.

    Args:
        rows_F7: first anchors of the image by falling loss: anchor (xyxy), loss, whether the anchor is positive, number
            of positive anchors of the image. The loss of an ignored anchor is -inf.
        everything: whether these are all anchors of the image.
        examples: largest number of kept anchors.
        nms_threshold: IoU above which the anchor with the lower loss is suppressed.
        ratio: largest number of kept negatives per kept positive, or None.
    """
    candidates_F7 = rows_F7[~rows_F7[:, 4].isneginf()]
    everything = everything or len(candidates_F7) < len(rows_F7)
    unsuppressed = nms(candidates_F7[:, :4], candidates_F7[:, 4], threshold=nms_threshold)
    if ratio is None:
        return unsuppressed[:examples] if everything or len(unsuppressed) >= examples else None
    positive_F = candidates_F7[:, 5] > 0
    is_positive = positive_F[unsuppressed]
    positives, negatives = unsuppressed[is_positive], unsuppressed[~is_positive]
    most_positives = max(1, int(examples / (1 + ratio)))
    if not everything and len(positives) < most_positives and positive_F.sum() < candidates_F7[0, 6]:
        return None  # a later anchor may be a kept positive
    positives = positives[:most_positives]
    most_negatives = min(examples - len(positives), int(ratio * max(1, len(positives))))
    if not everything and len(negatives) < most_negatives:
        return None
    return torch.cat([positives, negatives[:most_negatives]])
