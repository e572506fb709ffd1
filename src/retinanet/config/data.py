"""How datasets are read."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinanet.config.validation import check_options
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ClassesConfig:
    """Where the images of a dataset lie, and which of its objects are wanted."""

    images: Path | None = None
    """Folder of the images, where they do not lie beside the annotations."""
    classes: tuple[str, ...] = ()
    """Classes to keep (names with spaces or commas between them); the objects of the others are left out."""
    ignore_classes: tuple[str, ...] = ()
    """Classes whose objects are left out, likewise."""
    rename: tuple[str, ...] = ()
    """New names of classes, old=new; two classes that are renamed to one become one. Applied first."""
    skip_invalid: bool = False
    """Leave out faulty images and annotations, and report how many, instead of stopping. `check` lists the faults in
    any case; with this option it exits with status 0."""
    allow_outside: bool = False
    """Follow relative paths in the annotations that climb (..) out of their own folder, the folder above it and
    `images`. For annotations that you trust: those of a stranger could draw other images of the disk into reports."""

    def __post_init__(self) -> None:
        check_options(self)
        for pair in separate_names(self.rename):
            if not all(pair.partition("=")):
                raise ConfigError(f"rename needs old=new, found {pair!r}")

    @property
    def reading(self) -> dict[str, Any]:
        """What `data.read` is told by these options, `images` apart: training and validation data may differ in it."""
        return {
            "keep": separate_names(self.classes),
            "ignore": separate_names(self.ignore_classes),
            "rename": dict(pair.split("=", 1) for pair in separate_names(self.rename)),
            "allow_outside": self.allow_outside,
        }


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How datasets are read."""

    selection: ClassesConfig = field(default_factory=ClassesConfig)
    format: str | None = None
    """Annotation format of the data, such as coco, voc or yolo; recognised unless given. A wrong name lists all."""

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def reading(self) -> dict[str, Any]:
        """See `ClassesConfig`; with the format."""
        return {**self.selection.reading, "format": self.format}


def separate_names(values: tuple[str, ...]) -> list[str]:
    """Return the names in values such as 'a,b'."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]
