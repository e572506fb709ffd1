"""Anchors and ground truth to the target of every anchor. `ops.matching` computes the rule of the IoU thresholds.

An assigner of your own is a subclass of `Assigner` in any importable module, named by `--assigner
package.module:Class`. Its constructor takes an option of `MatchConfig` by declaring a keyword parameter of the option's
name, for example `positive_iou`; every other parameter needs a default.

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
    """Base class of the rules that make anchors positive, negative or ignored."""

    @abstractmethod
    def __call__(
        self, anchors_A4: Tensor, targets: Sequence[Target], *, anchors_per_level: Sequence[int]
    ) -> AnchorTargets:
        """Return the target of every anchor of every image.

        An assigner gets no predictions, so that `retinanet check` measures anchor coverage without a network.

        Args:
            anchors_A4: xyxy, input pixels.
            targets: ground truth of each image; crowd regions are objects that no anchor may be positive for.
            anchors_per_level: number of anchors of each feature level, finest first.
        """


@dataclass(frozen=True, kw_only=True)
class IoUAssigner(Assigner):
    """`match`: two thresholds on the IoU with the ground truth (arXiv 1708.02002, section 4)."""

    positive_iou: float = MatchConfig.positive_iou
    negative_iou: float = MatchConfig.negative_iou
    low_quality_matches: bool = MatchConfig.low_quality_matches

    def __call__(
        self, anchors_A4: Tensor, targets: Sequence[Target], *, anchors_per_level: Sequence[int]
    ) -> AnchorTargets:
        """Return the target of every anchor of every image; the levels make no difference."""
        return match(anchors_A4, targets, self)


def make_assigner(config: MatchConfig) -> Assigner:
    """Return the assigner that a config names, with its options. Raises `ConfigError`."""
    assigner: Assigner = make_part("assigner", find_class("assigner", config.assigner, ASSIGNERS, Assigner), config)
    return assigner


def match(anchors_A4: Tensor, targets: Sequence[Target], config: MatchConfig | IoUAssigner) -> AnchorTargets:
    """Assign every anchor of every image to an object, to the background, or to neither.

    An anchor is positive where its highest IoU with an object is at least `positive_iou`, and answers for that object
    (of several with the same IoU, the first); negative where it is below `negative_iou`; ignored between the two.
    An anchor that is not positive and lies within a crowd region by at least `positive_iou` of its own area is ignored,
    as COCO evaluation does with detections. Source: arXiv 1708.02002, section 4.

    With `low_quality_matches`, the anchors that overlap an object most are positive too, whatever that IoU is (but it
    must be above 0), each for the object that it overlaps most, as in torchvision and Detectron2.

    Args:
        anchors_A4: xyxy, input pixels.
        targets: one for each image.
        config: the thresholds.
    """
    return ops.match(
        anchors_A4,
        targets,
        positive_iou=config.positive_iou,
        negative_iou=config.negative_iou,
        low_quality_matches=config.low_quality_matches,
    )
