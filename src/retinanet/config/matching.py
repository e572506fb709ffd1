"""Which anchors are positive, negative and ignored."""

from dataclasses import dataclass

from retinanet.config.parts import ASSIGNERS
from retinanet.config.validation import check_between
from retinanet.errors import ConfigError
from retinanet.plugins import check_part


@dataclass(frozen=True, kw_only=True)
class MatchConfig:
    """Which anchors answer for which objects."""

    assigner: str = "iou"
    """Rule that makes anchors positive, negative or ignored: iou, by their IoU with the objects. Or
    package.module:Class, an assigner of your own."""
    positive_iou: float = 0.5
    """An anchor with at least this IoU with an object is positive."""
    negative_iou: float = 0.4
    """An anchor below this IoU with all objects is negative; between the two it is ignored."""
    low_quality_matches: bool = False
    """Also make the best anchors of an object positive that no anchor reaches (torchvision's and Detectron2's way)."""

    def __post_init__(self) -> None:
        check_part("assigner", self.assigner, ASSIGNERS)
        check_between(self, 0.0, 1.0, "positive_iou", "negative_iou")
        if self.negative_iou > self.positive_iou:
            raise ConfigError(f"negative_iou {self.negative_iou} is above positive_iou {self.positive_iou}")
