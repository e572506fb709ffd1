"""ATSS: adaptive training sample selection, an assigner with a threshold for each object.

Shape suffixes: A anchors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from retinanet.config import MatchConfig
from retinanet.matching.base import Assigner
from retinanet.ops.atss import atss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.types import AnchorTargets, Target


@dataclass(frozen=True, kw_only=True)
class ATSSAssigner(Assigner):
    """Assign anchors by a threshold that follows from the IoUs near each object.

    Candidates of an object are the anchors at the `atss_candidates` positions of each feature level whose centres are
    closest to the centre of the object, by L2 distance. The first positions of equal distance are used. With C anchors
    per position, a level has C x `atss_candidates` candidates, as in the code of the authors. The paper has C = 1.

    A candidate is positive if its IoU is at least the mean plus the standard deviation of the IoUs of all candidates of
    the object, and if its centre lies inside the object's box, not on the border. An anchor that is positive for
    several objects belongs to the object of highest IoU, or to the first object in case of equal IoU. All other anchors
    are negative. A negative anchor becomes ignored if a crowd region covers at least `positive_iou` of its area.

    An object that contains no centre of an anchor, for example one smaller than the stride of the finest level, gets no
    positive anchor. With `low_quality_matches`, each object without a positive anchor gets the candidate of highest IoU
    that no other object has, wherever the centre of the candidate lies, if the IoU is above 0.

    Source: Zhang et al., arXiv 1912.02424, section 3.2 and algorithm 1.

    Args:
        atss_candidates: number of positions of each level whose anchors are candidates of an object.
        positive_iou: share of the area of a negative anchor in a crowd region at which the anchor is ignored.
        low_quality_matches: make the best candidate of each object without a positive anchor positive.
    """

    atss_candidates: int = MatchConfig.atss_candidates
    positive_iou: float = MatchConfig.positive_iou
    low_quality_matches: bool = MatchConfig.low_quality_matches

    def __call__(
        self, anchors_A4: Tensor, targets: Sequence[Target], *, anchors_per_level: Sequence[int]
    ) -> AnchorTargets:
        """Return the target of every anchor of every image."""
        return atss(
            anchors_A4,
            targets,
            anchors_per_level=anchors_per_level,
            candidates=self.atss_candidates,
            crowd_share=self.positive_iou,
            low_quality_matches=self.low_quality_matches,
        )
