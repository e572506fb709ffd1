"""The dataset that a training run is measured on."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from retinanet.config.validation import check_options


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Validation data. `train` requires `val`; in other commands `val` is optional."""

    PANEL: ClassVar = "Data"

    val: Path | None
    """Validation data, in any annotation format that `train` reads. For a YOLO data.yaml, the split `val`."""
    val_images: Path | None = None
    """Folder of the validation images. Default: `images`."""

    def __post_init__(self) -> None:
        check_options(self)
