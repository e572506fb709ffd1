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
    """What `retinanet convert-weights FILE` can be told."""

    output: Annotated[Path, Flag("-o")]
    """File to write: a checkpoint of ours."""
    classes: tuple[str, ...] = ()
    """Names of the file's classes in the order of its outputs (with commas between them), where it is not COCO's."""
    frozen_eps: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.0
    """What torchvision's frozen BatchNorm adds to the variance: 0 in its published RetinaNet and in what is fine-tuned
    from it; 1e-5 where training started from ImageNet weights alone."""
    existing: ExistingConfig = field(default_factory=ExistingConfig)

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in `classes`, one each; double quotes protect a comma in a name."""
        return tuple(separate_names(self.classes))
