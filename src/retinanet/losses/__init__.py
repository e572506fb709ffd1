"""Classification losses, box losses, and the loss of a batch.

Classification losses: cross-entropy (plain, alpha-balanced, weighted), focal loss, quality focal loss, varifocal loss,
equalization loss v2, GHM-C, and cross-entropy with hard example mining. Box losses: smooth L1, L1 and GIoU.

Each loss is a function of tensors and a class that training uses. The tables in `config.part_tables` map the names of
the losses to their classes. `DetectionLoss` adds a classification and a box loss over a batch and normalises the sum.
"""

from retinanet.losses.base import (
    BoxLoss,
    ClassificationLoss,
    loss_class,
    make_box_loss,
    make_classification_loss,
)
from retinanet.losses.box import GIoULoss, L1Loss, SmoothL1Loss, giou_loss, l1_loss, smooth_l1_loss
from retinanet.losses.cross_entropy import (
    BalancedCrossEntropy,
    CrossEntropy,
    WeightedCrossEntropy,
    balanced_cross_entropy,
    sigmoid_cross_entropy,
    weighted_cross_entropy,
)
from retinanet.losses.detection import DetectionLoss, DetectionLosses
from retinanet.losses.equalization import EqualizationLossV2, equalization_loss_v2
from retinanet.losses.focal import (
    FocalLoss,
    QualityFocalLoss,
    VarifocalLoss,
    quality_focal_loss,
    sigmoid_focal_loss,
    varifocal_loss,
)
from retinanet.losses.ghm import GHMC, ghm_c_loss
from retinanet.losses.mining import HardNegativeMining, Ohem, hard_negative_mining, ohem

__all__ = [
    "GHMC",
    "BalancedCrossEntropy",
    "BoxLoss",
    "ClassificationLoss",
    "CrossEntropy",
    "DetectionLoss",
    "DetectionLosses",
    "EqualizationLossV2",
    "FocalLoss",
    "GIoULoss",
    "HardNegativeMining",
    "L1Loss",
    "Ohem",
    "QualityFocalLoss",
    "SmoothL1Loss",
    "VarifocalLoss",
    "WeightedCrossEntropy",
    "balanced_cross_entropy",
    "equalization_loss_v2",
    "ghm_c_loss",
    "giou_loss",
    "hard_negative_mining",
    "l1_loss",
    "loss_class",
    "make_box_loss",
    "make_classification_loss",
    "ohem",
    "quality_focal_loss",
    "sigmoid_cross_entropy",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "varifocal_loss",
    "weighted_cross_entropy",
]
