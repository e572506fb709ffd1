"""Which anchors are positive, negative and ignored."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from retinanet.config.part_tables import ASSIGNERS
from retinanet.config.validation import check_options
from retinanet.errors import ConfigError
from retinanet.plugins import check_part


@dataclass(frozen=True, kw_only=True)
class MatchConfig:
    """Which anchors answer for which objects."""

    assigner: str = "iou"
    """Rule that makes anchors positive, negative or ignored: iou, by their IoU with the objects. Or
    package.module:Class, an assigner of your own."""
    positive_iou: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.5
    """An anchor with at least this IoU with an object is positive."""
    negative_iou: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.4
    """An anchor below this IoU with all objects is negative; between the two it is ignored."""
    low_quality_matches: bool = False
    """Also make the best anchors of an object positive that no anchor reaches (torchvision's and Detectron2's way)."""

    def __post_init__(self) -> None:
        check_options(self)
        check_part("assigner", self.assigner, ASSIGNERS)
        if self.negative_iou > self.positive_iou:
            raise ConfigError(f"negative_iou {self.negative_iou} is above positive_iou {self.positive_iou}")
