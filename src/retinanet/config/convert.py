"""Options of `retinanet convert`."""

from dataclasses import dataclass, field
from typing import Any

from retinanet.config.data import ClassesConfig
from retinanet.config.loading import LoadingConfig
from retinanet.config.output import ImageFilesConfig
from retinanet.config.validation import check_options


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Options of `retinanet convert SRC DST`."""

    format: str
    """Annotation format to write, such as coco, voc, yolo or csv. An unknown name lists all formats."""
    from_format: str | None = None
    """Annotation format of the source, such as coco, voc or yolo. By default, the format is recognised from the
    files."""
    selection: ClassesConfig = field(default_factory=ClassesConfig)
    image_files: ImageFilesConfig = field(default_factory=ImageFilesConfig)
    loading: LoadingConfig = field(default_factory=LoadingConfig)

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of `data.read`: those of `ClassesConfig.reading`, and the format of the source."""
        return {**self.selection.reading, "format": self.from_format}
