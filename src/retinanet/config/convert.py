"""Options of `retinanet convert`."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from retinanet.config.data import ClassesConfig
from retinanet.config.validation import check_choice, check_positive

ImageFiles = Literal["copy", "link", "none"]


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(ClassesConfig):
    """What `retinanet convert SRC DST` can be told."""

    format: str
    """Format to write, such as coco, voc, yolo or csv. A wrong name lists all formats."""
    from_format: str | None = None
    """Format of the source; recognised unless given."""
    pictures: ImageFiles = "copy"
    """copy the pictures into the new data set, link to them, or none: leave them where they are."""
    workers: int = 2
    """Threads that decode pictures."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, pictures=get_args(ImageFiles))
        check_positive(self, "workers")

    @property
    def reading(self) -> dict[str, Any]:
        """See `ClassesConfig`; with the format of the source."""
        return {**super().reading, "format": self.from_format}
