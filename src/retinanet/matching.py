"""Assign anchors to ground-truth boxes: every anchor becomes positive, negative or ignored.

A custom assigner is a subclass of `Assigner` in any importable module, named by `--assigner package.module:Class`. Its
constructor gets each option of `MatchConfig` that it declares as a keyword parameter, for example `positive_iou`. Every
other parameter needs a default.

Shape suffixes: A anchors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retinanet.config import ASSIGNERS, MatchConfig
from retinanet.ops import matching as ops
from retinanet.plugins import find_class, make_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.types import AnchorTargets, Target


class Assigner(ABC):
    """Base class of assigners, the rules that make anchors positive, negative or ignored."""

    @abstractmethod
    def __call__(
        self, anchors_A4: Tensor, targets: Sequence[Target], *, anchors_per_level: Sequence[int]
    ) -> AnchorTargets:
        """Return the target of every anchor of every image.

        An assigner gets no predictions, so that `retinanet check` can measure anchor coverage without a network.

        Args:
            anchors_A4: anchors, xyxy, input pixels.
            targets: ground truth of each image. No anchor may be positive for a crowd region.
            anchors_per_level: number of anchors of each feature level, finest first.
        """


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


def make_assigner(config: MatchConfig) -> Assigner:
    """Return the assigner that a config names. Raises `ConfigError` if it cannot be imported or constructed."""
    assigner: Assigner = make_part("assigner", find_class("assigner", config.assigner, ASSIGNERS, Assigner), config)
    return assigner


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
