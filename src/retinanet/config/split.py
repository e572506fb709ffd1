"""Options of `retinanet split`."""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Gt

from retinanet.config.data import DataConfig
from retinanet.config.grouping import GroupingConfig
from retinanet.config.loading import LoadingConfig
from retinanet.config.output import FolderConfig, ImageFilesConfig
from retinanet.config.run import RandomConfig
from retinanet.config.validation import check_options
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Options of `retinanet split DATA`."""

    folder: FolderConfig
    val: Annotated[float, Gt(0)] = 0.2
    """Fraction of the images for validation. `val` and `test` together are below 1."""
    test: float = 0.0
    """Fraction of the images for the test set, at least 0. `val` and `test` together are below 1."""
    folds: Annotated[int | None, Ge(2)] = None
    """Number of folds for cross-validation, instead of one split. Each image is in the validation part of one fold.
    Writes the folders fold1, fold2 and so on, each with the parts train and val. `val` and `test` are not used."""
    near_duplicates: bool = True
    """Put images that look alike into the same part."""
    to: str = "coco"
    """Annotation format of the parts, such as coco, voc, yolo or csv. An unknown name lists all formats."""
    grouping: GroupingConfig = field(default_factory=GroupingConfig)
    dataset: DataConfig = field(default_factory=DataConfig)
    image_files: ImageFilesConfig = field(default_factory=lambda: ImageFilesConfig(image_files="none"))
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    random: RandomConfig = field(default_factory=RandomConfig)

    def __post_init__(self) -> None:
        check_options(self)
        if not 0 <= self.test < 1 or self.val + self.test >= 1:
            raise ConfigError(
                f"val must be above 0, test at least 0 and their sum below 1, found val {self.val}, test {self.test}"
            )
