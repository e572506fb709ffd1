"""Matching: assign ground-truth boxes to anchors. `retinanet.ops.matching` computes it.

Shape suffixes: A anchors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinanet.ops import matching as ops

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.config import MatchConfig
    from retinanet.types import AnchorTargets, Target


def match(anchors_A4: Tensor, targets: Sequence[Target], config: MatchConfig) -> AnchorTargets:
    """Assign every anchor of every picture to an object, to the background, or to neither.

    An anchor is positive where its highest IoU with an object is at least `positive_iou`, and answers for that object
    (of several with the same IoU, the first); negative where it is below `negative_iou`; ignored between the two.
    An anchor that is not positive and lies within a crowd region by at least `positive_iou` of its own area is ignored,
    as COCO evaluation does with detections. Source: arXiv 1708.02002, section 4.

    With `low_quality_matches`, the anchors that overlap an object most are positive too, whatever that IoU is (but it
    must be above 0), each for the object that it overlaps most, as in torchvision and Detectron2.

    Args:
        anchors_A4: xyxy, input pixels.
        targets: one for each picture.
        config: the thresholds.
    """
    return ops.match(
        anchors_A4,
        targets,
        positive_iou=config.positive_iou,
        negative_iou=config.negative_iou,
        low_quality_matches=config.low_quality_matches,
    )
