"""Box losses over (anchor, matched ground-truth box) pairs: on the offsets (smooth L1, L1) or on the boxes (GIoU).

The network predicts four offsets (dx, dy, dw, dh) for each anchor. Only positive anchors have a box loss.
Shape suffix: P positive anchors of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from retinanet.boxes import decode, encode, generalized_iou
from retinanet.config import LossConfig
from retinanet.losses.base import BoxLoss
from retinanet.losses.cross_entropy import in_float32
from retinanet.ops.box_loss import BoxTerms


def smooth_l1_loss(deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor, *, beta: float) -> Tensor:
    """Return the smooth L1 loss of the offsets, summed over the four offsets, shape (P,).

    With d = predicted offset - target offset, one offset costs 0.5 d^2 / beta if |d| < beta, else |d| - 0.5 beta.
    Offsets have no unit: dx and dy are relative to the anchor's sides, dw and dh are logarithms of ratios.

    Source: Girshick, Fast R-CNN, arXiv 1504.08083, equation 3, which has beta = 1.

    Args:
        deltas_P4: predicted offsets, any float type.
        boxes_P4: matched ground-truth boxes, xyxy, input pixels.
        anchors_P4: anchors, xyxy, input pixels.
        beta: absolute difference at which the loss turns from quadratic to linear, above 0.

    Raises:
        ValueError: the three shapes differ, or the last size is not 4.
    """
    _check_shapes(deltas_P4, boxes_P4, anchors_P4)
    targets_P4 = encode(boxes_P4, anchors_P4)
    return F.smooth_l1_loss(in_float32(deltas_P4), targets_P4, beta=beta, reduction="none").sum(-1)


def l1_loss(deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
    """Return the L1 loss: the absolute differences of predicted and target offsets, summed over the four, shape (P,).

    The arguments and errors are those of `smooth_l1_loss` without `beta`.
    """
    _check_shapes(deltas_P4, boxes_P4, anchors_P4)
    return (in_float32(deltas_P4) - encode(boxes_P4, anchors_P4)).abs().sum(-1)


def giou_loss(deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
    """Return 1 - GIoU of each predicted box and its ground-truth box, in [0, 2), shape (P,).

    GIoU (generalized IoU) is the IoU minus the fraction of the smallest enclosing box that neither box covers. It
    has a gradient even if the boxes do not overlap. The predicted box is decoded from the offsets.

    Source: Rezatofighi et al., arXiv 1902.09630, algorithm 1.

    Args:
        deltas_P4: predicted offsets, any float type.
        boxes_P4: matched ground-truth boxes, xyxy, input pixels.
        anchors_P4: anchors, xyxy, input pixels.

    Raises:
        ValueError: the three shapes differ, or the last size is not 4.
    """
    _check_shapes(deltas_P4, boxes_P4, anchors_P4)
    return 1 - generalized_iou(decode(in_float32(deltas_P4), anchors_P4), boxes_P4)


@dataclass(frozen=True, kw_only=True)
class SmoothL1Loss(BoxLoss):
    """Box loss for training: `smooth_l1_loss` with a fixed beta.

    Args:
        smooth_l1_beta: difference of offsets at which the loss turns from quadratic to linear, above 0.
    """

    smooth_l1_beta: float = LossConfig.smooth_l1_beta

    def __call__(self, deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
        """Return the smooth L1 loss of each positive anchor, shape (P,)."""
        return smooth_l1_loss(deltas_P4, boxes_P4, anchors_P4, beta=self.smooth_l1_beta)

    def fused_terms(self) -> BoxTerms:
        """Return the parameters of the fused kernel: smooth L1."""
        return BoxTerms(kind="offsets", beta=self.smooth_l1_beta)


class L1Loss(BoxLoss):
    """Box loss for training: `l1_loss`."""

    def __call__(self, deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
        """Return the L1 loss of each positive anchor, shape (P,)."""
        return l1_loss(deltas_P4, boxes_P4, anchors_P4)

    def fused_terms(self) -> BoxTerms:
        """Return the parameters of the fused kernel: smooth L1 with beta 0."""
        return BoxTerms(kind="offsets")


class GIoULoss(BoxLoss):
    """Box loss for training: `giou_loss`."""

    def __call__(self, deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
        """Return the GIoU loss of each positive anchor, shape (P,)."""
        return giou_loss(deltas_P4, boxes_P4, anchors_P4)

    def fused_terms(self) -> BoxTerms:
        """Return the parameters of the fused kernel: GIoU."""
        return BoxTerms(kind="giou")


def _check_shapes(deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> None:
    """Raise `ValueError` unless there is one box and one anchor for each row of offsets; nothing broadcasts."""
    shapes = [tuple(values.shape) for values in (deltas_P4, boxes_P4, anchors_P4)]
    if len(set(shapes)) > 1 or shapes[0][-1:] != (4,):
        raise ValueError(
            f"expected offsets, boxes and anchors of one shape (P, 4), found {', '.join(map(str, shapes))}"
        )
