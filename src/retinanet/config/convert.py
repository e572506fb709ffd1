"""Options of `retinanet convert`."""

from dataclasses import dataclass, field
from typing import Any, Literal

from retinanet.config.data import ClassesConfig, DataFormat
from retinanet.config.loading import LoadingConfig
from retinanet.config.output import ImageFilesConfig
from retinanet.config.validation import check_options
from retinanet.errors import ConfigError

ResultFormat = Literal["coco", "voc", "yolo", "csv"]


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """What `retinanet convert SRC DST` can be told."""

    format: ResultFormat
    """What to write: coco, voc, yolo or csv."""
    from_format: DataFormat | None = None
    """What to read the source as; recognised unless given."""
    selection: ClassesConfig = field(default_factory=ClassesConfig)
    image_files: ImageFilesConfig = field(default_factory=ImageFilesConfig)
    loading: LoadingConfig = field(default_factory=LoadingConfig)

    def __post_init__(self) -> None:
        check_options(self)
        if self.format == "yolo" and self.image_files.pictures == "none":
            raise ConfigError("YOLO finds labels by the place of the pictures: pictures must be copy or link")

    @property
    def reading(self) -> dict[str, Any]:
        """See `ClassesConfig`; with the format of the source."""
        return {**self.selection.reading, "format": self.from_format}
