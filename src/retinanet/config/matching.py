"""Options of the assigner, which makes anchors positive, negative or ignored."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval

from retinanet.config.part_tables import ASSIGNERS
from retinanet.config.validation import check_options
from retinanet.errors import ConfigError
from retinanet.plugins import check_part


@dataclass(frozen=True, kw_only=True)
class MatchConfig:
    """Options of the assigner, which makes anchors positive, negative or ignored."""

    PANEL: ClassVar = "Anchors and matching"

    assigner: str = "iou"
    """Rule that makes anchors positive, negative or ignored. iou: IoU thresholds. atss: a threshold for each object,
    from the IoUs of the anchors near the object. task_aligned: the anchors whose current predictions fit best. Your own
    rule: package.module:Class."""
    positive_iou: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.5
    """Lowest IoU with a ground-truth box at which an anchor is positive. With every assigner: lowest share of the area
    of a negative anchor in a crowd region at which the anchor is ignored."""
    negative_iou: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.4
    """An anchor whose IoU with every ground-truth box is below this value is negative. Anchors between `negative_iou`
    and `positive_iou` are ignored."""
    low_quality_matches: bool = False
    """For an object without a positive anchor, make the anchors of highest IoU positive (with iou as torchvision and
    Detectron2 do; with atss and task_aligned one anchor)."""
    atss_candidates: Annotated[int, Interval(ge=1, le=100)] = 9
    """With the assigner atss, number of positions of each feature level, the closest to the centre of an object, whose
    anchors are candidates of the object."""

    def __post_init__(self) -> None:
        check_options(self)
        check_part("assigner", self.assigner, ASSIGNERS)
        if self.negative_iou > self.positive_iou:
            raise ConfigError(
                f"negative_iou must be at most positive_iou ({self.positive_iou}), found {self.negative_iou}"
            )
