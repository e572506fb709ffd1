"""Options of `retinanet split`."""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Gt

from retinanet.config.data import DataConfig
from retinanet.config.loading import LoadingConfig
from retinanet.config.output import FolderConfig, ImageFilesConfig
from retinanet.config.run import RandomConfig
from retinanet.config.validation import check_options
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """What `retinanet split DATA` can be told."""

    folder: FolderConfig
    val: Annotated[float, Gt(0)] = 0.2
    """Share of the images for validation."""
    test: float = 0.0
    """Share of the images for a test at the end."""
    group_by: str | None = None
    """Images that agree in this stay together: a column of the CSV or a field of COCO's images, `folder`, or a
    regular expression searched in file names: '^[^_]+' is what comes before the first _."""
    near_duplicates: bool = True
    """Keep images that look the same on one side."""
    to: str = "coco"
    """Format of the parts, such as coco, voc, yolo or csv. A wrong name lists all formats."""
    dataset: DataConfig = field(default_factory=DataConfig)
    image_files: ImageFilesConfig = field(default_factory=lambda: ImageFilesConfig(image_files="none"))
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    random: RandomConfig = field(default_factory=RandomConfig)

    def __post_init__(self) -> None:
        check_options(self)
        if not 0 <= self.test < 1 or self.val + self.test >= 1:
            raise ConfigError(
                f"val and test are shares that leave something to train on, found {self.val}, {self.test}"
            )
