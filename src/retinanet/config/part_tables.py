"""The tables of losses and assigners: one line for each, its name and where its class lies.

Strings, not classes: the options load no torch. `retinanet.plugins` imports a class where one is built. A name that is
not in its table may be `package.module:Class`, a class of the user's own.
"""

from typing import Final

PART_OPTIONS: Final = ("backbone", "loss", "box_loss", "assigner")
"""Options that may name a part from outside."""

LOSSES: Final = {
    "focal": "retinanet.losses.focal:FocalLoss",
    "ce": "retinanet.losses.cross_entropy:CrossEntropy",
    "balanced_ce": "retinanet.losses.cross_entropy:BalancedCrossEntropy",
    "weighted": "retinanet.losses.cross_entropy:WeightedCrossEntropy",
    "hard_negative_mining": "retinanet.losses.mining:HardNegativeMining",
    "ohem": "retinanet.losses.mining:Ohem",
    "quality_focal": "retinanet.losses.focal:QualityFocalLoss",
    "varifocal": "retinanet.losses.focal:VarifocalLoss",
    "eql_v2": "retinanet.losses.equalization:EqualizationLossV2",
    "ghm_c": "retinanet.losses.ghm:GHMC",
}
"""Classification losses: subclasses of `losses.ClassificationLoss`."""

BOX_LOSSES: Final = {
    "smooth_l1": "retinanet.losses.box:SmoothL1Loss",
    "l1": "retinanet.losses.box:L1Loss",
    "giou": "retinanet.losses.box:GIoULoss",
}
"""Box losses: subclasses of `losses.BoxLoss`."""

ASSIGNERS: Final = {
    "iou": "retinanet.matching.iou:IoUAssigner",
    "atss": "retinanet.matching.atss:ATSSAssigner",
    "task_aligned": "retinanet.matching.task_aligned:TaskAlignedAssigner",
}
"""Assigners: subclasses of `matching.Assigner`."""
