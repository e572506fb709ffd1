"""Image and object of an annotation file, as readers give them to `DatasetBuilder`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from retinanet.formats.records import property_values

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path


@dataclass(slots=True)
class AnnotatedObject:
    """An object in an annotation file.

    Args:
        number: annotation id (COCO), or number of the object or its line, from 1.
        name: class name after renaming; None for an ignore region that applies to every class.
        box: xyxy, original pixels. `DatasetBuilder.add_object` checks the box and clips it to the image.
        crowd: whether the object is an ignore region: counted neither as a target nor as a false positive.
        area: area in square original pixels; None for the area of the box.
        reduced: whether the box was computed from another shape, such as a polygon or a rotated box.
    """

    number: int
    name: str | None
    box: tuple[float, float, float, float]
    crowd: bool = False
    area: float | None = None
    reduced: bool = False


@dataclass(slots=True)
class AnnotatedImage:
    """An image in an annotation file, with its size in original pixels and its image id, if the format has ids."""

    path: Path
    width: int
    height: int
    objects: list[AnnotatedObject] = field(default_factory=list)
    image_id: int | None = None
    properties: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add_properties(self, fields: Mapping[str, Any], *, known: Collection[str] = ()) -> None:
        """Add the values of columns or fields of the image or of one of its annotations, see `property_values`.

        Args:
            fields: value of each column or field, by name.
            known: names of fields that belong to the format and are left out.
        """
        for name in fields.keys() - known:
            for key, value in property_values(name, fields[name]):
                values = self.properties.get(key, ())
                if value not in values:
                    self.properties[key] = (*values, value)
