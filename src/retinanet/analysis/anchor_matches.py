"""Find why no anchor is positive for an object. Shape suffixes: A anchors, G objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.analysis.causes import MissCause
    from retinanet.config import MatchConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class AnchorMatches:
    """What training makes of the anchors of an image.

    Args:
        object_A: index of the object that an anchor is positive for, otherwise -1.
        iou_AG: IoU of each anchor with each object.
        positive_iou, negative_iou: thresholds of the IoU rule.
    """

    object_A: npt.NDArray[np.int64]
    iou_AG: npt.NDArray[np.floating[Any]]
    positive_iou: float
    negative_iou: float

    @classmethod
    def by_iou(cls, iou_AG: npt.NDArray[np.floating[Any]], config: MatchConfig) -> Self:
        """Return the result of the assigner iou, the rule of `ops.matching`, for objects that are not crowd regions."""
        best_A = iou_AG.max(axis=1)
        positive_A = best_A >= config.positive_iou
        if config.low_quality_matches:
            highest_G = iou_AG.max(axis=0)
            positive_A |= ((iou_AG == highest_G) & (highest_G > 0)).any(axis=1)
        return cls.of(np.where(positive_A, iou_AG.argmax(axis=1), -1), iou_AG, config)

    @classmethod
    def of(cls, object_A: npt.NDArray[np.int64], iou_AG: npt.NDArray[np.floating[Any]], config: MatchConfig) -> Self:
        """Return the result of any assigner, with the IoU thresholds of its options."""
        return cls(object_A=object_A, iou_AG=iou_AG, positive_iou=config.positive_iou, negative_iou=config.negative_iou)

    def of_object(self, g: int) -> npt.NDArray[np.int64]:
        """Return the positive anchors of an object; without these, the anchor with the highest IoU."""
        anchors = np.flatnonzero(self.object_A == g)
        return anchors if len(anchors) else np.array([self.iou_AG[:, g].argmax()])

    def taken_by(self, g: int) -> int | None:
        """Return the other object that anchors which fit object `g` are positive for, best anchor first.

        None if these anchors are positive for no object: an assigner other than iou left them out.
        """
        fitting = np.flatnonzero((self.iou_AG[:, g] >= self.positive_iou) & (self.object_A >= 0) & (self.object_A != g))
        return int(self.object_A[fitting[self.iou_AG[fitting, g].argmax()]]) if len(fitting) else None

    def cause(self, g: int) -> MissCause | None:
        """Return why no anchor is positive for an object; None if one is."""
        if (self.object_A == g).any():
            return None
        best = float(self.iou_AG[:, g].max(initial=0.0))
        if best < self.negative_iou:
            return "no anchor"
        return "anchors ignored" if best < self.positive_iou else "anchors taken"
