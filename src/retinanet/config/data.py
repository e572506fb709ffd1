"""How datasets are read."""

import csv
from collections.abc import Iterable
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
    ignore_regions: tuple[str, ...] = ()
    """Class names whose objects are ignore regions for every class, separated by spaces or commas. In an ignore region,
    background is not trained and detections are not counted as false positives."""
    rename: tuple[str, ...] = ()
    """New class names, as old=new pairs. Two classes renamed to one name become one class. Renaming happens before
    `classes`, `ignore_classes` and `ignore_regions` are applied."""
    skip_invalid: bool = False
    """Leave out invalid images and annotations and report their number, instead of stopping. `check` lists the faults
    in any case; with this option it exits with status 0."""
    allow_outside: bool = False
    """Follow relative paths in annotations that lead (..) out of the annotation folder, its parent folder and `images`.
    Use it only for trusted annotations: an untrusted file could bring other images of the disk into reports."""

    def __post_init__(self) -> None:
        check_options(self)
        separate_pairs(self.rename)

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of `data.read`, without `images`, which may differ between training and validation data."""
        return {
            "keep": self.classes,
            "ignore": self.ignore_classes,
            "regions": self.ignore_regions,
            "rename": separate_pairs(self.rename),
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
                raise ConfigError(f"rename must be old=new, found {pair!r}{hint}")
            new_names[old] = new
    return new_names
