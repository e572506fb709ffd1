"""Groups of images, which stay together when a dataset is divided."""

from dataclasses import dataclass
from typing import ClassVar

from retinanet.config.validation import check_options


@dataclass(frozen=True, kw_only=True)
class GroupingConfig:
    """Groups of images, which stay together when a dataset is divided."""

    PANEL: ClassVar = "Data"

    group_by: str | None = None
    """Keep images in one part (in cross-validation: in one fold) that share this property: a column of a CSV file; a
    field of an image or of its annotations in another format (YOLO has none); `folder`, the folder of the image;
    `folder:1`, the first folder below the common folder of all images; or a regular expression. The expression is
    searched in the file name ('^[^_]+' is the part before the first _), or, if it contains a slash, in the path below
    the common folder."""

    def __post_init__(self) -> None:
        check_options(self)
