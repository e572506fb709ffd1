"""Task-aligned assignment: the anchors whose predictions already fit an object best become its positives.

Shape suffixes: A anchors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from retinanet.boxes import decode
from retinanet.config import MatchConfig
from retinanet.matching.base import Assigner
from retinanet.ops.task_aligned import task_aligned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.types import AnchorTargets, HeadOutputs, Target


@dataclass(frozen=True, kw_only=True)
class TaskAlignedAssigner(Assigner):
    """Assign to each object the 13 anchors whose current predictions fit the object best.

    The alignment metric of an anchor is t = s u^6, with s the predicted probability of the object's class and u the IoU
    of the predicted box with the object's box. Positive are the 13 anchors with the largest metric above 0 of those
    whose centre lies inside the object's box, not on the border. The first anchors of equal metrics are used. An anchor
    that is positive for several objects belongs to the object of highest u, or to the first object in case of equal u.
    All other anchors are negative. A negative anchor becomes ignored if a crowd region covers at least `positive_iou`
    of its area. No gradient flows through the assignment.

    In a new network all probabilities are near the prior, and the predicted boxes are near the anchors. So the first
    positives are the anchors of highest IoU. A call without predictions, which `retinanet check` uses, assumes this
    state: equal probabilities, and the anchors as predicted boxes.

    With `low_quality_matches`, each object without a positive anchor gets the anchor of highest u that no other object
    has, of the 13 anchors of highest u, if u is above 0.

    Source: Feng et al., arXiv 2108.07755, section 3.2 with alpha = 1, beta = 6 and m = 13. Unlike in the code of the
    authors, the anchors with a centre outside of the box are removed before the 13 anchors are selected, and the target
    of the classification loss is that of the chosen loss, not the normalised metric.

    Args:
        positive_iou: share of the area of a negative anchor in a crowd region at which the anchor is ignored.
        low_quality_matches: make the best anchor of each object without a positive anchor positive.
    """

    positive_iou: float = MatchConfig.positive_iou
    low_quality_matches: bool = MatchConfig.low_quality_matches

    def __call__(
        self, anchors_A4: Tensor, targets: Sequence[Target], *, anchors_per_level: Sequence[int]
    ) -> AnchorTargets:
        """Return the target of every anchor for equal probabilities, with the anchors as predicted boxes."""
        return task_aligned(
            anchors_A4,
            targets,
            predicted_NA4=anchors_A4.detach()[None],
            logits_NAK=None,
            crowd_share=self.positive_iou,
            low_quality_matches=self.low_quality_matches,
        )

    def assign(self, outputs: HeadOutputs, targets: Sequence[Target]) -> AnchorTargets:
        """Return the target of every anchor for the current predictions."""
        return task_aligned(
            outputs.anchors_A4,
            targets,
            predicted_NA4=decode(outputs.deltas_NA4.detach().float(), outputs.anchors_A4),
            logits_NAK=outputs.logits_NAK.detach(),
            crowd_share=self.positive_iou,
            low_quality_matches=self.low_quality_matches,
        )
