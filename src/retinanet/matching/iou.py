"""Matching by IoU thresholds, RetinaNet's own assigner.

Shape suffixes: A anchors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from retinanet.config import MatchConfig
from retinanet.matching.base import Assigner
from retinanet.ops import matching as ops

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.types import AnchorTargets, Target


@dataclass(frozen=True, kw_only=True)
class IoUAssigner(Assigner):
    """Assign anchors by two thresholds on the IoU with ground-truth boxes, see `match`.

    Args:
        positive_iou: minimum IoU of a positive anchor.
        negative_iou: IoU below which an anchor is negative.
        low_quality_matches: make the best anchors of each object positive, whatever their IoU.
    """

    positive_iou: float = MatchConfig.positive_iou
    negative_iou: float = MatchConfig.negative_iou
    low_quality_matches: bool = MatchConfig.low_quality_matches

    def __call__(
        self, anchors_A4: Tensor, targets: Sequence[Target], *, anchors_per_level: Sequence[int]
    ) -> AnchorTargets:
        """Return the target of every anchor of every image. `anchors_per_level` is not used."""
        return match(anchors_A4, targets, self)


def match(anchors_A4: Tensor, targets: Sequence[Target], config: MatchConfig | IoUAssigner) -> AnchorTargets:
    """Return the target of every anchor of every image: positive, negative or ignored.

    An anchor is positive if its highest IoU with a ground-truth box is at least `positive_iou`. It is matched to that
    box, or to the first box in case of equal IoU. It is negative if the highest IoU is below `negative_iou`, otherwise
    ignored. A negative anchor becomes ignored if a crowd region covers at least `positive_iou` of its area, as COCO
    evaluation ignores detections in crowd regions. Source: arXiv 1708.02002, section 4.

    With `low_quality_matches`, the anchors with the highest IoU for each box are positive too, whatever that IoU is,
    if it is above 0. Each of these anchors is matched to the box with which its own IoU is highest, as in torchvision
    and Detectron2.

    Args:
        anchors_A4: anchors, xyxy, input pixels.
        targets: ground truth of each image.
        config: thresholds.
    """
    return ops.match(
        anchors_A4,
        targets,
        positive_iou=config.positive_iou,
        negative_iou=config.negative_iou,
        low_quality_matches=config.low_quality_matches,
    )
