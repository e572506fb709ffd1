"""What a command writes, and what it replaces."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from retinanet.config.annotations import Flag
from retinanet.config.validation import check_options

ImageFiles = Literal["copy", "link", "none"]


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """The folder of the results."""

    PANEL: ClassVar = "Output"

    output: Annotated[Path, Flag("-o")]
    """Folder for the results."""


@dataclass(frozen=True, kw_only=True)
class ExistingConfig:
    """What happens to existing results."""

    PANEL: ClassVar = "Output"

    overwrite: bool = False
    """Replace existing results in the same place."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Files that hold the printed results."""

    PANEL: ClassVar = "Output"

    report: Path | None = None
    """File for a report with figures (one self-contained HTML page)."""
    json: Path | None = None
    """File for the results as JSON. `-` prints the JSON, and nothing else, on standard output."""


@dataclass(frozen=True, kw_only=True)
class ImageFilesConfig:
    """Where the images of a written dataset lie."""

    PANEL: ClassVar = "Output"

    image_files: ImageFiles = "copy"
    """copy: copy the images into the new dataset. link: make symbolic links to the images. none: leave the images in
    their place, which COCO and CSV files name."""

    def __post_init__(self) -> None:
        check_options(self)
