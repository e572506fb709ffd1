"""Options of `retinanet convert-weights`."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.config.data import separate_names
from retinanet.config.validation import check_between


@dataclass(frozen=True, kw_only=True)
class ConvertWeightsConfig:
    """What `retinanet convert-weights FILE` can be told."""

    output: Path
    """File to write: a checkpoint of ours."""
    classes: tuple[str, ...] = ()
    """Names of the file's classes in the order of its outputs (with commas between them), where it is not COCO's."""
    frozen_eps: float = 0.0
    """What torchvision's frozen BatchNorm adds to the variance: 0 in its published RetinaNet and in what is fine-tuned
    from it; 1e-5 where training started from ImageNet weights alone."""
    overwrite: bool = False
    """Replace a file that is already there."""

    def __post_init__(self) -> None:
        check_between(self, 0.0, 1.0, "frozen_eps")

    @property
    def names(self) -> tuple[str, ...]:
        """The names in `classes`, each on its own."""
        return tuple(separate_names(self.classes))
