"""Options of `retinanet split`."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from retinanet.config.convert import ImageFiles
from retinanet.config.data import DataConfig
from retinanet.config.validation import check_choice, check_positive
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SplitConfig(DataConfig):
    """What `retinanet split DATA` can be told."""

    output: Path
    """Folder for the parts: train.json and val.json, unless `to` says otherwise."""
    val: float = 0.2
    """Share of the pictures for validation."""
    test: float = 0.0
    """Share of the pictures for a test at the end."""
    group_by: str | None = None
    """Pictures that agree in this stay together: a column of the CSV or a field of COCO's images, `folder`, or a
    regular expression searched in file names: '^[^_]+' is what comes before the first _."""
    near_duplicates: bool = True
    """Keep pictures that look the same on one side."""
    to: str = "coco"
    """Format of the parts, such as coco, voc, yolo or csv. A wrong name lists all formats."""
    pictures: ImageFiles = "none"
    """none: leave the pictures where they are (coco and csv name their place); copy; or link to them."""
    workers: int = 2
    """Threads that decode pictures."""
    seed: int = 0
    """The same seed divides alike."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, pictures=get_args(ImageFiles))
        check_positive(self, "workers", "val")
        if not 0 <= self.test < 1 or self.val + self.test >= 1:
            raise ConfigError(
                f"val and test are shares that leave something to train on, found {self.val}, {self.test}"
            )
