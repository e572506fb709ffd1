"""How datasets are read."""

import csv
from collections.abc import Iterable
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
        separate_pairs(self.rename)

    @property
    def reading(self) -> dict[str, Any]:
        """What `data.read` is told by these options, `images` apart: training and validation data may differ in it."""
        return {
            "keep": self.classes,
            "ignore": self.ignore_classes,
            "rename": separate_pairs(self.rename),
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


def separate_names(values: Iterable[str]) -> list[str]:
    """Return the names in values such as 'a,b'. Double quotes protect a comma, as in CSV: '"a, with comma",b'.

    Raises:
        ConfigError: a value that Python's csv module cannot read.
    """
    names: list[str] = []
    for value in values:
        try:
            rows = list(csv.reader(value.splitlines(), skipinitialspace=True))
        except csv.Error as error:
            raise ConfigError(f"expected names with commas between them ({error}), found {value[:100]!r}") from error
        names += [name.strip() for row in rows for name in row if name.strip()]
    return names


def separate_pairs(values: Iterable[str]) -> dict[str, str]:
    """Return the new name of each old name in values such as 'a=b,c=d'.

    Quotes protect a comma: '"a, with comma"=b,"c=d, with comma"'. A value with a single = names one pair if the comma
    is in its old name: 'a, with comma=b'.

    Raises:
        ConfigError: a value that is not old=new.
    """
    new_names = {}
    for value in values:
        is_one_pair = value.count("=") == 1 and "," in value.partition("=")[0] and '"' not in value
        for pair in [value.strip()] if is_one_pair else separate_names((value,)):
            old, _, new = (part.strip() for part in pair.partition("="))
            if not (old and new):
                hint = ". Put a pair whose names contain a comma in double quotes" if "," in value else ""
                raise ConfigError(f"rename needs old=new, found {pair!r}{hint}")
            new_names[old] = new
    return new_names
