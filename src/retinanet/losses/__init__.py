"""The losses: cross-entropy and its weighted forms, focal and its heirs, hard example mining; smooth L1, L1, GIoU.

`DetectionLoss` chooses among them, sums over a batch and divides.
"""

from retinanet.losses.box import giou_loss, l1_loss, smooth_l1_loss
from retinanet.losses.cross_entropy import balanced_cross_entropy, sigmoid_cross_entropy, weighted_cross_entropy
from retinanet.losses.detection import DetectionLoss, DetectionLosses
from retinanet.losses.focal import quality_focal_loss, sigmoid_focal_loss, varifocal_loss
from retinanet.losses.mining import hard_negative_mining, ohem

__all__ = [
    "DetectionLoss",
    "DetectionLosses",
    "balanced_cross_entropy",
    "giou_loss",
    "hard_negative_mining",
    "l1_loss",
    "ohem",
    "quality_focal_loss",
    "sigmoid_cross_entropy",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "varifocal_loss",
    "weighted_cross_entropy",
]
