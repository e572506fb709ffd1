"""What a command writes, and what it replaces."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from retinanet.config.annotations import Flag
from retinanet.config.validation import check_options

ImageFiles = Literal["copy", "link", "none"]


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """The folder of the results."""

    output: Annotated[Path, Flag("-o")]
    """Folder for the results."""


@dataclass(frozen=True, kw_only=True)
class ExistingConfig:
    """What happens to existing results."""

    overwrite: bool = False
    """Replace existing results of the same name."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Files that repeat what is printed."""

    report: Path | None = None
    """File for a report with figures (HTML)."""
    json: Path | None = None
    """File for the results as JSON. With `check`, `-` prints the JSON instead of the text."""


@dataclass(frozen=True, kw_only=True)
class ImageFilesConfig:
    """Where the images of a written dataset lie."""

    image_files: ImageFiles = "copy"
    """copy: copy the images into the new dataset. link: link to them. none: leave the images in their place, which
    COCO and CSV files name."""

    def __post_init__(self) -> None:
        check_options(self)
