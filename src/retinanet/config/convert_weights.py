"""Options of `retinanet convert-weights`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from retinanet.config.annotations import Flag
from retinanet.config.data import separate_names
from retinanet.config.output import ExistingConfig
from retinanet.config.validation import check_options


@dataclass(frozen=True, kw_only=True)
class ConvertWeightsConfig:
    """Options of `retinanet convert-weights FILE`."""

    output: Annotated[Path, Flag("-o")]
    """Checkpoint file to write."""
    classes: tuple[str, ...] = ()
    """Class names in the order of the network's outputs, separated by spaces or commas. Default: the COCO classes."""
    frozen_eps: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.0
    """Epsilon that torchvision's frozen BatchNorm adds to the variance. 0 for torchvision's published RetinaNet and
    networks fine-tuned from it; 1e-5 for networks trained from ImageNet weights only."""
    existing: ExistingConfig = field(default_factory=ExistingConfig)

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in `classes`, one each; double quotes protect a comma in a name."""
        return tuple(separate_names(self.classes))
