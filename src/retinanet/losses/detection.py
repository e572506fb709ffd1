"""The loss of a batch: sums the two losses and divides, here and nowhere else.

Shape suffixes: N batch, A anchors, K classes, P positive anchors of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed as dist

from retinanet.boxes import decode, iou
from retinanet.config import LossConfig
from retinanet.errors import ConfigError
from retinanet.losses.base import make_box_loss, make_classification_loss
from retinanet.ops.focal_loss import focal_loss, supports_focal_loss

if TYPE_CHECKING:
    from torch import Tensor

    from retinanet.losses.base import BoxLoss, ClassificationLoss
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

    `DetectionLoss(config=...)` builds the parts that a config names. `DetectionLoss(classification=..., box=...)` takes
    parts built outside.

    Args:
        config: names of the two losses, and all options; the arguments below other than `distributed` are then unused.
        classification: the classification loss.
        box: the box loss.
        normaliser: divide by the positives of the batch, or of each image ("image").
        box_loss_weight: weight of the box loss in the sum.
        label_smoothing: subtracted from the target 1 of the positives.
        distributed: count the positives of all ranks. False: count those of this rank, without communication.

    Raises:
        ConfigError: a name that is no loss, or label smoothing for a loss whose targets are IoUs.
        TypeError: neither a config nor both losses.
    """

    def __init__(
        self,
        *,
        config: LossConfig | None = None,
        classification: ClassificationLoss | None = None,
        box: BoxLoss | None = None,
        normaliser: Literal["batch", "image"] = LossConfig.normaliser,
        box_loss_weight: float = LossConfig.box_loss_weight,
        label_smoothing: float = LossConfig.label_smoothing,
        distributed: bool = True,
    ) -> None:
        if config is not None:
            classification, box = make_classification_loss(config), make_box_loss(config)
            normaliser, box_loss_weight = config.normaliser, config.box_loss_weight
            label_smoothing = config.label_smoothing
        if classification is None or box is None:
            raise TypeError("DetectionLoss needs a config, or a classification and a box loss")
        if label_smoothing and classification.target == "iou":
            raise ConfigError(f"label_smoothing has no effect on {classification.label}: its targets are IoUs")
        self.classification = classification
        self.box = box
        self.normaliser = normaliser
        self.box_loss_weight = box_loss_weight
        self.positive_target = 1 - label_smoothing
        self.distributed = distributed

    def __call__(self, outputs: HeadOutputs, targets: AnchorTargets) -> DetectionLosses:
        """Return the losses of a batch, each a float32 scalar with a gradient even where there is no object at all."""
        positives_N = targets.positive_NA.sum(dim=1)
        scale_N = self._scale_N(positives_N)
        classification = self._classification_N(outputs, targets, scale_N).sum()
        box = (self._box_N(outputs, targets) * scale_N).sum()
        return DetectionLosses(
            total=classification + self.box_loss_weight * box,
            classification=classification,
            box=box,
            num_positives=positives_N.sum(),
        )

    def _classification_N(self, outputs: HeadOutputs, targets: AnchorTargets, scale_N: Tensor) -> Tensor:
        """Return each image's classification loss times its scale: fused where possible, else by plain code."""
        terms = self.classification.fused_terms(outputs.logits_NAK, self.positive_target)
        if terms is None or not supports_focal_loss(outputs.logits_NAK):
            return self.classification_NAK(outputs, targets).sum(dim=(1, 2)) * scale_N
        # The scale goes in, so that the gradient that comes back is 1 and the stored one needs no second pass.
        masks = (targets.positive_NA, targets.ignored_NA, targets.labels_NA)
        return focal_loss(outputs.logits_NAK, *masks, terms=terms, scale_N=scale_N)

    def classification_NAK(self, outputs: HeadOutputs, targets: AnchorTargets, *, mine: bool = True) -> Tensor:
        """Return the loss of every anchor and class before any sum.

        The loss is 0 at ignored anchors, whatever their logits, and at anchors that hard example mining leaves out.

        Args:
            outputs: of the network.
            targets: of the anchors.
            mine: False: without hard example mining.
        """
        logits_NAK = outputs.logits_NAK
        # Nearly every target is 0: all elements as background first, then the few positives by index. No one-hot.
        background = logits_NAK.new_zeros(())
        loss_NAK = self.classification(logits_NAK, background)
        n, a = torch.nonzero(targets.positive_NA, as_tuple=True)
        k = targets.labels_NA[n, a]
        loss_P = self.classification(logits_NAK[n, a, k], self._positive_targets_P(outputs, targets), k)
        loss_NAK = loss_NAK.index_put((n, a, k), loss_P)
        keep_NA = ~targets.ignored_NA
        if mine and self.classification.mines:
            keep_NA = self.classification.keep(loss_NAK.detach().sum(dim=2), outputs, targets)
        return loss_NAK.masked_fill(~keep_NA.unsqueeze(-1), 0.0)

    def _positive_targets_P(self, outputs: HeadOutputs, targets: AnchorTargets) -> Tensor:
        """Return each positive anchor's target for its own class: 1 less the smoothing, or the predicted box's IoU."""
        n, a = torch.nonzero(targets.positive_NA, as_tuple=True)
        if self.classification.target == "one":
            return outputs.logits_NAK.new_full((len(n),), self.positive_target, dtype=torch.float32)
        with torch.no_grad():
            boxes_P4 = decode(outputs.deltas_NA4[n, a].float(), outputs.anchors_A4[a])
            return iou(boxes_P4, targets.boxes_NA4[n, a])

    def _box_N(self, outputs: HeadOutputs, targets: AnchorTargets) -> Tensor:
        n, a = torch.nonzero(targets.positive_NA, as_tuple=True)
        loss_P = self.box(outputs.deltas_NA4[n, a], targets.boxes_NA4[n, a], outputs.anchors_A4[a])
        return loss_P.new_zeros(len(targets.positive_NA)).index_add(0, n, loss_P)

    def _scale_N(self, positives_N: Tensor) -> Tensor:
        """Return what each image's sums are multiplied by: 1 / the positives of the batch over all ranks, or of the
        image on its own and averaged over the batch. The one place where the loss is normalised. Float32.
        """
        if self.normaliser == "image":
            images, _ = _a_rank(positives_N.new_tensor(len(positives_N)).float(), self.distributed)
            return 1 / (positives_N.clamp(min=1) * images.clamp(min=1)).float()
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
