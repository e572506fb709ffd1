"""Box losses over matched pairs: on the offsets (smooth L1, L1) or on the boxes (GIoU). P: positive anchors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from retinanet.boxes import decode, encode, generalized_iou
from retinanet.config import LossConfig
from retinanet.losses.base import BoxLoss
from retinanet.losses.cross_entropy import in_float32


def smooth_l1_loss(deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor, *, beta: float) -> Tensor:
    """Smooth L1 of the offsets: 0.5 d^2 / beta below beta, |d| - 0.5 beta above; summed over the four. Shape (P,).

    Source: Fast R-CNN, arXiv 1504.08083, equation 3 (there beta is 1).
    """
    difference_P4 = (in_float32(deltas_P4) - encode(boxes_P4, anchors_P4)).abs()
    square_P4 = 0.5 * difference_P4**2 / beta
    return square_P4.where(difference_P4 < beta, difference_P4 - 0.5 * beta).sum(-1)


def l1_loss(deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
    """L1 of the offsets, summed over the four. Shape (P,)."""
    return (in_float32(deltas_P4) - encode(boxes_P4, anchors_P4)).abs().sum(-1)


def giou_loss(deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
    """1 - GIoU of the decoded and the matched box, in [0, 2). Shape (P,). Source: arXiv 1902.09630."""
    return 1 - generalized_iou(decode(in_float32(deltas_P4), anchors_P4), boxes_P4)


@dataclass(frozen=True, kw_only=True)
class SmoothL1Loss(BoxLoss):
    """`smooth_l1_loss` as a loss to train with."""

    smooth_l1_beta: float = LossConfig.smooth_l1_beta

    def __call__(self, deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
        """Return the loss of each positive anchor."""
        return smooth_l1_loss(deltas_P4, boxes_P4, anchors_P4, beta=self.smooth_l1_beta)


class L1Loss(BoxLoss):
    """`l1_loss` as a loss to train with."""

    def __call__(self, deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
        """Return the loss of each positive anchor."""
        return l1_loss(deltas_P4, boxes_P4, anchors_P4)


class GIoULoss(BoxLoss):
    """`giou_loss` as a loss to train with."""

    def __call__(self, deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
        """Return the loss of each positive anchor."""
        return giou_loss(deltas_P4, boxes_P4, anchors_P4)
