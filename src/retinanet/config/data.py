"""How datasets are read."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from retinanet.config.validation import check_options
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ClassesConfig:
    """Folder of the images, and the objects of a dataset that are used."""

    PANEL: ClassVar = "Data"

    images: Path | None = None
    """Folder of the images, if the images do not lie beside the annotations."""
    classes: tuple[str, ...] = ()
    """Class names to keep, separated by spaces or commas. Objects of all other classes are left out."""
    ignore_classes: tuple[str, ...] = ()
    """Class names to leave out, separated by spaces or commas. Objects of these classes are left out."""
    rename: tuple[str, ...] = ()
    """New class names, as old=new pairs. Two classes renamed to one name become one class. Renaming happens before
    `classes` and `ignore_classes` are applied."""
    skip_invalid: bool = False
    """Leave out invalid images and annotations and report their number, instead of stopping. `check` lists the faults
    in any case; with this option it exits with status 0."""
    allow_outside: bool = False
    """Follow relative paths in annotations that lead (..) out of the annotation folder, its parent folder and `images`.
    Use it only for trusted annotations: an untrusted file could bring other images of the disk into reports."""

    def __post_init__(self) -> None:
        check_options(self)
        for pair in separate_names(self.rename):
            if not all(pair.partition("=")):
                raise ConfigError(f"rename must be old=new, found {pair!r}")

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of `data.read`, without `images`, which may differ between training and validation data."""
        return {
            "keep": separate_names(self.classes),
            "ignore": separate_names(self.ignore_classes),
            "rename": dict(pair.split("=", 1) for pair in separate_names(self.rename)),
            "allow_outside": self.allow_outside,
        }


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How datasets are read."""

    PANEL: ClassVar = "Data"

    selection: ClassesConfig = field(default_factory=ClassesConfig)
    format: str | None = None
    """Annotation format of the data, such as coco, voc or yolo. By default, the format is recognised from the files. An
    unknown name lists all formats."""

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of `data.read`: those of `ClassesConfig.reading`, and the format."""
        return {**self.selection.reading, "format": self.format}


def separate_names(values: tuple[str, ...]) -> list[str]:
    """Return the names in values such as 'a,b'."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]
