"""The loss of a batch: chooses the two losses, sums them, and divides, here and nowhere else.

Shape suffixes: N batch, A anchors, K classes, P positive anchors of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from retinanet.boxes import decode, iou
from retinanet.losses.box import giou_loss, l1_loss, smooth_l1_loss
from retinanet.losses.cross_entropy import balanced_cross_entropy, sigmoid_cross_entropy, weighted_cross_entropy
from retinanet.losses.focal import quality_focal_loss, sigmoid_focal_loss, varifocal_loss
from retinanet.losses.mining import hard_negative_mining, ohem
from retinanet.ops.focal_loss import focal_loss, supports_focal_loss
from retinanet.ops.focal_terms import FocalTerms

if TYPE_CHECKING:
    from torch import Tensor

    from retinanet.config import LossConfig
    from retinanet.types import AnchorTargets, HeadOutputs


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionLosses:
    """The loss of a batch, normalised.

    Args:
        total: what is minimised: classification + box_loss_weight x box.
        classification: summed over all anchors and classes that count, divided by the positives.
        box: summed over the positives, divided likewise; before its weight.
        num_positives: positive anchors of this batch on this rank, int64 scalar.
    """

    total: Tensor
    classification: Tensor
    box: Tensor
    num_positives: Tensor


class DetectionLoss:
    """Network outputs and anchor targets to the loss that is minimised. Holds no state.

    Args:
        config: which losses.
        distributed: divide by the positives of all ranks, where there are several; False: of this one, asking nobody.
    """

    def __init__(self, *, config: LossConfig, distributed: bool = True) -> None:
        self.config = config
        self.distributed = distributed

    def __call__(self, outputs: HeadOutputs, targets: AnchorTargets) -> DetectionLosses:
        """Return the losses of a batch, each a float32 scalar with a gradient even where there is no object at all."""
        positives_N = targets.positive_NA.sum(dim=1)
        scale_N = self._scale_N(positives_N)
        classification = self._classification_N(outputs, targets, scale_N).sum()
        box = (self._box_N(outputs, targets) * scale_N).sum()
        return DetectionLosses(
            total=classification + self.config.box_loss_weight * box,
            classification=classification,
            box=box,
            num_positives=positives_N.sum(),
        )

    def _classification_N(self, outputs: HeadOutputs, targets: AnchorTargets, scale_N: Tensor) -> Tensor:
        """Return each picture's classification loss times its scale: fused where possible, else by plain code."""
        terms = self._fused_terms(outputs.logits_NAK)
        if terms is None or not supports_focal_loss(outputs.logits_NAK):
            return self.classification_NAK(outputs, targets).sum(dim=(1, 2)) * scale_N
        # The scale goes in, so that the gradient that comes back is 1 and the stored one needs no second pass.
        masks = (targets.positive_NA, targets.ignored_NA, targets.labels_NA)
        return focal_loss(outputs.logits_NAK, *masks, terms=terms, scale_N=scale_N)

    def _fused_terms(self, logits_NAK: Tensor) -> FocalTerms | None:
        """Return the configured loss as the fused kernels have it, or None for one that they cannot express."""
        config, K = self.config, logits_NAK.shape[-1]
        if config.loss not in {"focal", "balanced_ce", "ce"}:
            return None
        target = 1 - config.label_smoothing
        alpha_K = logits_NAK.new_tensor(config.class_alpha or (config.alpha,), dtype=torch.float32).expand(K)
        if config.loss == "ce":
            positive_K = negative_K = torch.ones_like(alpha_K)
        else:
            positive_K, negative_K = alpha_K * target + (1 - alpha_K) * (1 - target), 1 - alpha_K
        gamma = config.gamma if config.loss == "focal" else 0.0
        return FocalTerms(positive_weight_K=positive_K, negative_weight_K=negative_K, gamma=gamma, target=target)

    def elementwise(self, logits: Tensor, targets: Tensor, alpha: float | Tensor | None = None) -> Tensor:
        """Return the chosen classification loss of each logit, before any mining.

        Args:
            logits: of any shape; with `class_alpha`, its last dimension is the classes, unless `alpha` is given.
            targets: a shape that broadcasts to it; 1 or 0, or for quality_focal and varifocal an IoU.
            alpha: the weight of the positives; by default as configured.
        """
        config = self.config
        if alpha is None:
            alpha = logits.new_tensor(config.class_alpha, dtype=torch.float32) if config.class_alpha else config.alpha
        if config.loss == "focal":
            return sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=config.gamma)
        if config.loss == "balanced_ce":
            return balanced_cross_entropy(logits, targets, alpha=alpha)
        if config.loss == "weighted":
            return weighted_cross_entropy(logits, targets, negative_weight=config.negative_weight)
        if config.loss == "quality_focal":
            return quality_focal_loss(logits, targets, gamma=config.gamma)
        if config.loss == "varifocal":
            return varifocal_loss(logits, targets, alpha=config.alpha, gamma=config.gamma)
        return sigmoid_cross_entropy(logits, targets)

    def classification_NAK(self, outputs: HeadOutputs, targets: AnchorTargets) -> Tensor:
        """Return the loss of every anchor and class before any sum.

        0 at ignored anchors, whatever their logits, and at those that hard example mining leaves out.
        """
        logits_NAK = outputs.logits_NAK
        # Nearly every target is 0: all elements as background first, then the few positives by index. No one-hot.
        background = logits_NAK.new_zeros(())
        loss_NAK = self.elementwise(logits_NAK, background)
        n, a = torch.nonzero(targets.positive_NA, as_tuple=True)
        k = targets.labels_NA[n, a]
        alpha = (
            logits_NAK.new_tensor(self.config.class_alpha, dtype=torch.float32)[k] if self.config.class_alpha else None
        )
        loss_P = self.elementwise(logits_NAK[n, a, k], self._positive_targets_P(outputs, targets), alpha)
        loss_NAK = loss_NAK.index_put((n, a, k), loss_P)
        return loss_NAK.masked_fill(~self._counted_NA(loss_NAK, outputs, targets).unsqueeze(-1), 0.0)

    def _positive_targets_P(self, outputs: HeadOutputs, targets: AnchorTargets) -> Tensor:
        """Return what the positives' own class is to reach: 1, less the smoothing, or the IoU of the predicted box."""
        n, a = torch.nonzero(targets.positive_NA, as_tuple=True)
        if self.config.loss not in {"quality_focal", "varifocal"}:
            return outputs.logits_NAK.new_full((len(n),), 1 - self.config.label_smoothing, dtype=torch.float32)
        with torch.no_grad():
            boxes_P4 = decode(outputs.deltas_NA4[n, a].float(), outputs.anchors_A4[a])
            return iou(boxes_P4, targets.boxes_NA4[n, a])

    def _counted_NA(self, loss_NAK: Tensor, outputs: HeadOutputs, targets: AnchorTargets) -> Tensor:
        """Return which anchors take part: all but the ignored ones, or those that hard example mining keeps."""
        config = self.config
        if config.loss not in {"hard_negative_mining", "ohem"}:
            return ~targets.ignored_NA
        loss_NA = loss_NAK.detach().sum(dim=2)
        if config.loss == "hard_negative_mining":
            ratio = config.negatives_per_positive
            return hard_negative_mining(loss_NA, targets.positive_NA, targets.ignored_NA, ratio=ratio)
        return ohem(
            loss_NA,
            targets.positive_NA,
            targets.ignored_NA,
            outputs.anchors_A4,
            examples=config.ohem_examples,
            nms_threshold=config.ohem_nms,
            ratio=config.negatives_per_positive if config.ohem_balanced else None,
        )

    def _box_N(self, outputs: HeadOutputs, targets: AnchorTargets) -> Tensor:
        n, a = torch.nonzero(targets.positive_NA, as_tuple=True)
        deltas_P4 = outputs.deltas_NA4[n, a]
        boxes_P4 = targets.boxes_NA4[n, a]
        anchors_P4 = outputs.anchors_A4[a]
        if self.config.box_loss == "giou":
            loss_P = giou_loss(deltas_P4, boxes_P4, anchors_P4)
        elif self.config.box_loss == "l1":
            loss_P = l1_loss(deltas_P4, boxes_P4, anchors_P4)
        else:
            loss_P = smooth_l1_loss(deltas_P4, boxes_P4, anchors_P4, beta=self.config.smooth_l1_beta)
        return loss_P.new_zeros(len(targets.positive_NA)).index_add(0, n, loss_P)

    def _scale_N(self, positives_N: Tensor) -> Tensor:
        """Return what each picture's sums are multiplied by: 1 / the positives of the batch over all ranks, or of the
        picture on its own and averaged over the batch. The one place where the loss is normalised. Float32.
        """
        if self.config.normaliser == "image":
            pictures, _ = _a_rank(positives_N.new_tensor(len(positives_N)).float(), self.distributed)
            return 1 / (positives_N.clamp(min=1) * pictures.clamp(min=1)).float()
        positives, one = _a_rank(positives_N.sum().float(), self.distributed)
        return (1 / positives.clamp(min=one)).expand(len(positives_N))


def _a_rank(count: Tensor, distributed: bool) -> tuple[Tensor, float]:
    """Return the mean of a count over the ranks, and what a count of 1 on all of them together is to each.

    DDP averages the gradients over the ranks; a division by the mean makes that their sum over all, by the whole count.
    """
    if not (distributed and dist.is_available() and dist.is_initialized()):
        return count, 1.0
    dist.all_reduce(count)
    return count / dist.get_world_size(), 1 / dist.get_world_size()
