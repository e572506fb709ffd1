"""Options of `retinanet convert`."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from retinanet.config.data import ClassesConfig, DataFormat
from retinanet.config.validation import check_choice, check_positive
from retinanet.errors import ConfigError

ResultFormat = Literal["coco", "voc", "yolo", "csv"]


ImageFiles = Literal["copy", "link", "none"]


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(ClassesConfig):
    """What `retinanet convert SRC DST` can be told."""

    format: ResultFormat
    """What to write: coco, voc, yolo or csv."""
    from_format: DataFormat | None = None
    """What to read the source as; recognised unless given."""
    pictures: ImageFiles = "copy"
    """copy the pictures into the new data set, link to them, or none: leave them where they are."""
    workers: int = 2
    """Threads that decode pictures."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, format=get_args(ResultFormat), pictures=get_args(ImageFiles))
        check_positive(self, "workers")
        if self.format == "yolo" and self.pictures == "none":
            raise ConfigError("YOLO finds labels by the place of the pictures: pictures must be copy or link")

    @property
    def reading(self) -> dict[str, Any]:
        """See `ClassesConfig`; with the format of the source."""
        return {**super().reading, "format": self.from_format}
