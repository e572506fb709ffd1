"""From dense predictions to detections."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt, Interval

from retinanet.config.validation import check_options


@dataclass(frozen=True, kw_only=True)
class PostprocessConfig:
    """From dense predictions to detections."""

    PANEL: ClassVar = "Output"

    score_threshold: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.05
    """Lowest score of a candidate. Candidates with lower scores are dropped before NMS."""
    nms_threshold: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.5
    """IoU threshold of NMS: of two boxes of a class that overlap more, the box with the lower score is dropped."""
    agnostic_nms: bool = False
    """Class-agnostic NMS: a box suppresses overlapping boxes of every class. By default, a box suppresses overlapping
    boxes of its own class only. Use it if two objects never overlap, so that an object gets one class."""
    candidates_per_level: Annotated[int, Gt(0)] = 1000
    """Greatest number of candidates per feature level, the highest scores first."""
    max_detections: Annotated[int, Gt(0)] = 100
    """Greatest number of detections per image. In training, AP counts as many detections if this number exceeds
    100."""
    clip_before_nms: bool = True
    """Clip boxes to the image before NMS (as torchvision does). `--no-clip-before-nms` clips after NMS (as Detectron2
    does)."""

    def __post_init__(self) -> None:
        check_options(self)
