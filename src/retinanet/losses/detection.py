"""The loss of a batch: the sum of the classification and the box loss, divided by the number of positive anchors.

Only this module sums and normalises losses. With C the classification loss of an example (an anchor and a class), B the
box loss of a positive anchor and P the number of positive anchors of the batch:

total = (sum of C over all classes of all anchors that are not ignored + box_loss_weight x sum of B over positives) / P

Source: Lin et al., arXiv 1708.02002, section 4.1: the sum is divided by the number of positive anchors, not by all
anchors, because nearly all anchors are easy background.

The validation loss is the loss of all validation images as one batch: the sums run over all images of all ranks, and P
is the number of positives of all images (1 if there are none). The size of the evaluation batches has no effect.

Shape suffixes: N batch, A anchors, K classes, P positive anchors of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed as dist

from retinanet.boxes import decode, iou
from retinanet.config import LossConfig
from retinanet.errors import ConfigError
from retinanet.losses.base import make_box_loss, make_classification_loss
from retinanet.ops.box_loss import box_loss, supports_box_loss
from retinanet.ops.focal_loss import focal_loss, supports_focal_loss

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from retinanet.losses.base import BoxLoss, ClassificationLoss
    from retinanet.types import AnchorTargets, HeadOutputs


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionLosses:
    """The normalised losses of a batch. All losses are float32 scalars.

    Args:
        total: loss that training minimises: classification + box_loss_weight x box.
        classification: classification loss, summed over anchors and classes and divided by the number of positives.
        box: box loss before its weight, summed over positive anchors and divided by the number of positives.
        num_positives: number of positive anchors of this batch on this rank, int64 scalar.
    """

    total: Tensor
    classification: Tensor
    box: Tensor
    num_positives: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageLosses:
    """The losses of single images before any division: the terms of the loss of a dataset.

    Args:
        classification_N: classification loss of each image, summed over anchors and classes.
        box_N: box loss of each image before its weight, summed over positive anchors.
        positives_N: number of positive anchors of each image, int64.
    """

    classification_N: Tensor
    box_N: Tensor
    positives_N: Tensor


class DetectionLoss:
    """Compute the loss of a batch from the outputs of the network and the targets of the anchors.

    `DetectionLoss(config=...)` builds the two losses that a config names. `DetectionLoss(classification=..., box=...)`
    uses existing loss objects. Only a classification loss can have a state that changes in training: see
    `ClassificationLoss.update`.

    Args:
        config: names of the two losses and their options. With a config, only `distributed` is read of the other
            arguments.
        classification: classification loss.
        box: box loss.
        normaliser: "batch" divides by the number of positives of the batch; "image" divides the loss of each image by
            its own number of positives and averages over the images.
        box_loss_weight: weight of the box loss in the total loss.
        label_smoothing: number subtracted from the target 1 of a positive example; the background's target stays 0.
        distributed: whether positives are counted over all ranks. False: on this rank only, without communication.

    Raises:
        ConfigError: a loss name does not exist, or label smoothing is set for a loss whose targets are IoUs.
        TypeError: neither a config nor both losses are passed.
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
            raise TypeError(
                f"expected a config, or a classification loss and a box loss; found config {config}, "
                f"classification {classification}, box {box}"
            )
        if label_smoothing and classification.target == "iou":
            raise ConfigError(
                f"label_smoothing: expected 0 for the loss {classification.label!r}, whose targets are IoUs, "
                f"found {label_smoothing:g}. Remove label_smoothing or choose another loss"
            )
        self.classification = classification
        self.box = box
        self.normaliser = normaliser
        self.box_loss_weight = box_loss_weight
        self.positive_target = 1 - label_smoothing
        self.distributed = distributed

    def __call__(self, outputs: HeadOutputs, targets: AnchorTargets) -> DetectionLosses:
        """Return the losses of a batch. Their gradients exist for a batch without objects, too: the divisor is then 1.

        Args:
            outputs: outputs of the network: logits, offsets and anchors.
            targets: targets of the anchors: positive, ignored, class ids and matched boxes.
        """
        return self.over_parts([(outputs, targets)])

    def over_parts(self, parts: Sequence[tuple[HeadOutputs, AnchorTargets]]) -> DetectionLosses:
        """Return the losses of a batch whose images were computed in parts, such as one part for each image shape.

        The positives of all parts are counted together, so the division of a batch into parts has no effect.

        Args:
            parts: outputs of the network and targets of the anchors of each part.
        """
        if torch.is_grad_enabled():
            total = partial(_sum_over_ranks, distributed=self.distributed)
            self.classification.update(parts, target=self.positive_target, sum_over_ranks=total)
        positives_N = _positives_N(parts)
        scale_N, positives = self._scale_N(positives_N, distributed=self.distributed)
        classification_N, box_N = self._scaled_losses(parts, scale_N)
        return self._add_up(classification_N, box_N, positives)

    @torch.no_grad()
    def per_image(self, parts: Sequence[tuple[HeadOutputs, AnchorTargets]]) -> ImageLosses:
        """Return the losses of single images, for `over_dataset`. The state of the loss is used and does not change."""
        positives_N = _positives_N(parts)
        ones_N = torch.ones_like(positives_N, dtype=torch.float32)
        classification_N, box_N = self._scaled_losses(parts, ones_N)
        return ImageLosses(classification_N=classification_N, box_N=box_N, positives_N=positives_N)

    def over_dataset(self, images: ImageLosses) -> DetectionLosses:
        """Return the losses of a dataset as those of one batch of all its images, without communication."""
        scale_N, positives = self._scale_N(images.positives_N, distributed=False)
        return self._add_up(images.classification_N * scale_N, images.box_N * scale_N, positives)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors of the classification loss that change in training, by name; empty for most losses."""
        return dict(self.classification.state)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replace the state by one that `state_dict` returned."""
        self.classification.state.clear()
        self.classification.state.update(state)

    def _scaled_losses(
        self, parts: Sequence[tuple[HeadOutputs, AnchorTargets]], scale_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the classification loss and the box loss of each image of all parts, times `scale_N`."""
        scales = torch.split(scale_N, [len(targets.positive_NA) for _, targets in parts])
        scaled = list(zip(parts, scales, strict=True))
        classification_N = _joined([self._classification_N(*part, scale_N) for part, scale_N in scaled])
        return classification_N, _joined([self._box_N(*part, scale_N) for part, scale_N in scaled])

    def _add_up(self, classification_N: Tensor, box_N: Tensor, positives: Tensor) -> DetectionLosses:
        classification, box = classification_N.sum(), box_N.sum()
        total = torch.add(classification, box, alpha=self.box_loss_weight)
        return DetectionLosses(total=total, classification=classification, box=box, num_positives=positives)

    def _classification_N(self, outputs: HeadOutputs, targets: AnchorTargets, scale_N: Tensor) -> Tensor:
        """Return the classification loss of each image times `scale_N`, from the fused kernels if they support it."""
        terms = None
        if supports_focal_loss(outputs.logits_NAK):
            terms = self.classification.fused_terms(outputs.logits_NAK, self.positive_target)
        if terms is None:
            return self.classification_NAK(outputs, targets).sum(dim=(1, 2)) * scale_N
        # With the scale inside, backward receives the gradient 1 and returns the stored gradient without another pass.
        masks = (targets.positive_NA, targets.ignored_NA, targets.labels_NA)
        return focal_loss(outputs.logits_NAK, *masks, terms=terms, scale_N=scale_N)

    def classification_NAK(self, outputs: HeadOutputs, targets: AnchorTargets, *, mine: bool = True) -> Tensor:
        """Return the classification loss of each anchor and class, (N, A, K), before sum and division.

        The loss is 0 at ignored anchors, whatever their logits, and at anchors that hard example mining drops.

        Args:
            outputs: outputs of the network.
            targets: targets of the anchors.
            mine: whether hard example mining is applied. False keeps the loss of all anchors that are not ignored.
        """
        # Nearly every target is 0. So all examples are computed as background, and the positives are then replaced.
        # One-hot targets would take as much memory as the logits.
        loss_NAK = self.classification(outputs.logits_NAK, outputs.logits_NAK.new_zeros(()))
        if outputs.logits_NAK.device.type == "cpu":
            loss_NAK = self._replace_positives_by_index(loss_NAK, outputs, targets)
        else:
            loss_NAK = self._replace_positives_by_label(loss_NAK, outputs, targets)
        dropped_NA = targets.ignored_NA
        if mine and self.classification.mines:
            dropped_NA = ~self.classification.keep(loss_NAK.detach().sum(dim=2), outputs, targets)
        return loss_NAK.masked_fill(dropped_NA.unsqueeze(-1), 0.0)

    def _replace_positives_by_index(self, loss_NAK: Tensor, outputs: HeadOutputs, targets: AnchorTargets) -> Tensor:
        """Return the losses of all examples, with those of the positives computed from a list of the positives."""
        n, a = torch.nonzero(targets.positive_NA, as_tuple=True)
        k = targets.labels_NA[n, a]
        if self.classification.target == "one":
            target_P = outputs.logits_NAK.new_full((len(n),), self.positive_target, dtype=torch.float32)
        else:
            target_P = _predicted_iou(outputs.deltas_NA4[n, a], outputs.anchors_A4[a], targets.boxes_NA4[n, a])
        return loss_NAK.index_put((n, a, k), self.classification(outputs.logits_NAK[n, a, k], target_P, k))

    def _replace_positives_by_label(self, loss_NAK: Tensor, outputs: HeadOutputs, targets: AnchorTargets) -> Tensor:
        """Return the losses of all examples, with one example of each anchor computed again, that of its label.

        The length of a list of the positives is known only on the device, and the CPU would wait for it. All sizes are
        fixed here: each anchor has one label, and the target of an anchor that is not positive is 0, as before. The
        additional work is 1 / K of the work for all examples.
        """
        label_NA = targets.labels_NA * targets.positive_NA  # a label that is not used may be no class id
        if self.classification.target == "one":
            target_NA = targets.positive_NA.float()
            target_NA = target_NA if self.positive_target == 1 else target_NA * self.positive_target
        else:
            iou_NA = _predicted_iou(outputs.deltas_NA4, outputs.anchors_A4, targets.boxes_NA4)
            target_NA = iou_NA.masked_fill(~targets.positive_NA, 0.0)
        logits_NA = outputs.logits_NAK.gather(2, label_NA.unsqueeze(-1)).squeeze(-1)
        own_NA = self.classification(logits_NA, target_NA, label_NA)
        return loss_NAK.scatter(2, label_NA.unsqueeze(-1), own_NA.unsqueeze(-1))

    def _box_N(self, outputs: HeadOutputs, targets: AnchorTargets, scale_N: Tensor) -> Tensor:
        """Return the box loss of each image, summed over its positive anchors, times `scale_N`.

        On the CPU, the positives are selected, because they are few. On a GPU, the CPU would wait for their number. The
        fused kernel has the least memory traffic: it reads offsets and boxes of the positives only. Where it does not
        support the loss, the loss of all anchors is computed, and a mask selects. A list of fixed length, the top k of
        the mask, is no choice, because no assigner bounds the number of positives below the number of anchors. For 16
        images of 201,600 anchors, the tensors of smooth L1 for all anchors take 0.27 GiB, those of GIoU 0.43 GiB.
        """
        positive_NA, anchors_A4 = targets.positive_NA, outputs.anchors_A4
        if positive_NA.device.type == "cpu":
            n, a = torch.nonzero(positive_NA, as_tuple=True)
            loss_P = self.box(outputs.deltas_NA4[n, a], targets.boxes_NA4[n, a], anchors_A4[a])
            return loss_P.new_zeros(len(positive_NA)).index_add(0, n, loss_P) * scale_N
        terms = self.box.fused_terms()
        if terms is not None and supports_box_loss(outputs.deltas_NA4, targets.boxes_NA4, anchors_A4):
            return box_loss(outputs.deltas_NA4, targets.boxes_NA4, anchors_A4, positive_NA, scale_N, terms)
        other_NA = ~positive_NA
        # NaN in the offsets of another anchor must reach neither the loss nor the gradient.
        deltas_NA4 = outputs.deltas_NA4.masked_fill(other_NA.unsqueeze(-1), 0.0)
        anchors_NA4 = anchors_A4.expand_as(deltas_NA4)
        loss_P = self.box(*(rows.reshape(-1, 4) for rows in (deltas_NA4, targets.boxes_NA4, anchors_NA4)))
        return loss_P.view_as(positive_NA).masked_fill(other_NA, 0.0).sum(dim=1) * scale_N

    def _scale_N(self, positives_N: Tensor, *, distributed: bool) -> tuple[Tensor, Tensor]:
        """Return the factor of the loss of each image, float32, and the number of positives on this rank.

        Only this function normalises the loss. The normaliser "batch" gives 1 / P, with P the number of positives of
        the batch. The normaliser "image" gives 1 / (P_n N), with P_n the number of positives of image n and N the
        number of images. A count of 0 becomes 1.

        Args:
            positives_N: number of positives of each image, int64.
            distributed: whether P and N are counted over all ranks; see `_mean_over_ranks`.
        """
        positives = positives_N.sum()
        if self.normaliser == "image":
            count = positives_N.new_full((), len(positives_N), dtype=torch.float32)
            images, _ = _mean_over_ranks(count, distributed)
            return (positives_N.clamp(min=1) * images.clamp(min=1)).float().reciprocal(), positives
        mean, smallest = _mean_over_ranks(positives.float(), distributed)
        return mean.clamp(min=smallest).reciprocal().expand(len(positives_N)), positives


@torch.no_grad()
def _predicted_iou(deltas_P4: Tensor, anchors_P4: Tensor, boxes_P4: Tensor) -> Tensor:
    """Return the IoU of each predicted box with its ground-truth box, the target of quality losses, float32."""
    return iou(decode(deltas_P4.float(), anchors_P4), boxes_P4)


def _mean_over_ranks(count: Tensor, distributed: bool) -> tuple[Tensor, float]:
    """Return the mean of a count over the ranks, and 1 / world size, the mean of a total count of 1.

    DDP averages gradients over the ranks. If each rank divides its loss by the mean count, the averaged gradient equals
    the gradient of the summed loss of all ranks, divided by the total count.
    """
    if not _has_ranks(distributed):
        return count, 1.0
    return _sum_over_ranks(count, distributed) / dist.get_world_size(), 1 / dist.get_world_size()


def _sum_over_ranks(values: Tensor, distributed: bool) -> Tensor:
    """Return the sum of a tensor over the ranks, in the memory of the tensor."""
    if _has_ranks(distributed):
        dist.all_reduce(values)
    return values


def _has_ranks(distributed: bool) -> bool:
    return distributed and dist.is_available() and dist.is_initialized()


def _positives_N(parts: Sequence[tuple[HeadOutputs, AnchorTargets]]) -> Tensor:
    """Return the number of positive anchors of each image of all parts."""
    return _joined([targets.positive_NA.sum(dim=1) for _, targets in parts])


def _joined(parts_N: Sequence[Tensor]) -> Tensor:
    """Return the values of all parts. A single part needs no copy: its gradient reaches the fused kernel directly."""
    return parts_N[0] if len(parts_N) == 1 else torch.cat(list(parts_N))
