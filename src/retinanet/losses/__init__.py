"""The losses: cross-entropy, alpha-balanced cross-entropy, focal; smooth L1, L1, GIoU; and their sum over a batch."""

from retinanet.losses.box import giou_loss, l1_loss, smooth_l1_loss
from retinanet.losses.cross_entropy import balanced_cross_entropy, sigmoid_cross_entropy
from retinanet.losses.detection import DetectionLoss, DetectionLosses
from retinanet.losses.focal import sigmoid_focal_loss

__all__ = [
    "DetectionLoss",
    "DetectionLosses",
    "balanced_cross_entropy",
    "giou_loss",
    "l1_loss",
    "sigmoid_cross_entropy",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
]
