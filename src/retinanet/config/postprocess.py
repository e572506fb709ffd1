"""From dense predictions to detections."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Interval

from retinanet.config.validation import check_options


@dataclass(frozen=True, kw_only=True)
class PostprocessConfig:
    """From dense predictions to detections."""

    score_threshold: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.05
    """Detections below this score are dropped before NMS."""
    nms_threshold: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.5
    """Of two boxes of a class that overlap by more than this IoU, the better one stays."""
    candidates_per_level: Annotated[int, Gt(0)] = 1000
    """How many of the best scores of each level are decoded."""
    max_detections: Annotated[int, Gt(0)] = 100
    """Detections kept in an image."""
    clip_before_nms: bool = True
    """Cut boxes off at the image's edges before NMS (torchvision's way), or after it (Detectron2's)."""

    def __post_init__(self) -> None:
        check_options(self)
