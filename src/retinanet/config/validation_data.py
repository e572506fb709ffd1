"""The dataset that a training run is measured on."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.config.validation import check_options


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Validation data. `val` has no default here: `train` requires it, other commands take None for it."""

    val: Path | None
    """Validation data, in any format that `train` takes; of a data.yaml, the split `val`."""
    val_images: Path | None = None
    """Folder of the validation images; `images` unless given."""

    def __post_init__(self) -> None:
        check_options(self)
