"""The annotations of a COCO file: ids, boxes, segmentations and flags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from retinanet.formats.annotated_image import AnnotatedImage, AnnotatedObject
from retinanet.formats.geometry import box_around, turn_box
from retinanet.formats.text import finite_number, integer, truth
from retinanet.parse import shorten

if TYPE_CHECKING:
    from retinanet.formats.box_numbers import Box
    from retinanet.formats.class_selection import ClassSelection

_MAX_COORDINATE: Final = 1e12
"""Maximum absolute coordinate."""
_IDS_END: Final = 2**63
"""Limit of ids, which evaluators store in 64 bits."""
_RUN_LENGTHS: Final = '{"size": [height, width], "counts": [...]}'
"""A run-length encoded mask, for a message."""


def read_annotation(
    entry: Any,
    number: int,
    image: AnnotatedImage | None,
    names: dict[int, str],
    selection: ClassSelection,
) -> AnnotatedObject | str | None:
    """Return an object, a text that describes its fault, or None if its class is left out."""
    if not isinstance(entry, dict):
        return f"expected an object with image_id, category_id and bbox, found {shorten(entry)}"
    annotation_id, category_id = read_id(entry.get("id")), read_id(entry.get("category_id"))
    if image is None:
        return f"expected the id of one of the images as image_id, found {shorten(entry.get('image_id'))}"
    if category_id not in names or category_id is None:
        return f"expected the id of one of the categories as category_id, found {shorten(entry.get('category_id'))}"
    if (name := selection.new_name(names[category_id])) is None:
        return None
    if fault := selection.fault(name):
        return fault
    shape = _read_box(entry, image)
    if isinstance(shape, str):
        return shape
    box, is_reduced = shape
    if (crowd := truth(entry.get("iscrowd"))) is None:
        return f"expected 0 or 1 as iscrowd, found {shorten(entry['iscrowd'])}"
    area = _float(entry.get("area"))
    return AnnotatedObject(
        number=number if annotation_id is None else annotation_id,
        name=name,
        box=box,
        crowd=crowd,
        area=area if area is not None and area > 0 else None,
        reduced=is_reduced,
    )


class AnnotationIds:
    """Finds annotations with one id. Merged files repeat the ids of different annotations, which are all read."""

    def __init__(self) -> None:
        self._entry_of: dict[str, dict[str, Any]] = {}
        self._copies = self._repeated = 0

    def is_copy(self, entry: Any) -> bool:
        """Return whether an annotation with the same id, image, class and box came before."""
        if not isinstance(entry, dict) or entry.get("id") is None:
            return False
        earlier = self._entry_of.setdefault(str(entry["id"]), entry)
        if earlier is entry:
            return False
        is_copy = all(earlier.get(key) == entry.get(key) for key in ("image_id", "category_id", "bbox", "segmentation"))
        self._copies += is_copy
        self._repeated += not is_copy
        return is_copy

    def notes(self) -> list[str]:
        """Return sentences about repeated ids."""
        notes = []
        if self._copies:
            notes.append(f"{self._copies:,} annotations repeat the id, image, class and box of another: read once")
        if self._repeated:
            notes.append(f"{self._repeated:,} annotations repeat the id of another annotation: all were read")
        return notes


def _read_box(entry: dict[str, Any], image: AnnotatedImage) -> tuple[Box, bool] | str:
    """Return the xyxy box of an annotation, and whether it was computed from another shape; or the text of its fault.

    Without a bbox, the box is the one around the segmentation. CVAT writes the bbox before its rotation, and the
    clockwise rotation about its centre, in degrees, as an attribute.
    """
    bbox, segmentation, attributes = entry.get("bbox"), entry.get("segmentation"), entry.get("attributes")
    if not bbox and segmentation:
        around = _box_around_segmentation(segmentation, image)
        return around if isinstance(around, str) else (around, True)
    numbers = [_float(value) for value in bbox] if isinstance(bbox, list) else []
    if len(numbers) != 4 or None in numbers:
        return f"expected four finite numbers (x, y, width, height) as bbox, found {shorten(bbox)}"
    x, y, w, h = (value for value in numbers if value is not None)
    degrees = finite_number(attributes.get("rotation")) if isinstance(attributes, dict) and not segmentation else None
    return turn_box((x, y, x + w, y + h), degrees or 0.0), bool(degrees)


def _box_around_segmentation(segmentation: Any, image: AnnotatedImage) -> Box | str:
    """Return the xyxy box around polygons or a run-length encoded mask, or a text that describes the fault."""
    fault = f"expected polygons or a run-length encoded mask as segmentation, found {shorten(segmentation)}"
    if isinstance(segmentation, list):
        if not isinstance(segmentation[0], list):  # one polygon without the list around it
            segmentation = [segmentation]
        polygons = [[_float(v) for v in polygon] if isinstance(polygon, list) else [] for polygon in segmentation]
        points: list[tuple[float, float]] = []
        for polygon in polygons:
            values = [value for value in polygon if value is not None]
            if len(values) < max(6, len(polygon)):
                return fault
            if len(values) % 2:
                return f"{fault}, an odd number of coordinates. Run lengths are written as {_RUN_LENGTHS}"
            points += zip(values[::2], values[1::2], strict=True)
        return box_around(points)
    from hotcoco import mask

    try:
        height, width = (int(side) for side in segmentation["size"])
        if (width, height) != (image.width, image.height):
            return f"expected a mask of the size of the {image.width}x{image.height} image, found {width}x{height}"
        is_encoded = isinstance(segmentation["counts"], str)
        encoded = segmentation if is_encoded else mask.fr_py_objects(segmentation, height, width)
        x, y, w, h = mask.to_bbox(encoded).tolist()
    except (KeyError, TypeError, ValueError, OverflowError):
        return fault
    return x, y, x + w, y + h


def image_key(value: Any) -> int | str | None:
    """Return an image id as an integer, or as a text if it is no number; None for any other value."""
    number = read_id(value)
    return number if number is not None else (value if isinstance(value, str) and value else None)


def read_id(value: Any) -> int | None:
    """Return an id, also if it is written as 1.0 (as pandas does) or "1", or None for any other value."""
    number = integer(value)
    return number if number is not None and abs(number) < _IDS_END else None


def _float(value: Any) -> float | None:
    """Return a finite number, or None for any other value."""
    number = finite_number(value)
    return number if number is not None and abs(number) <= _MAX_COORDINATE else None
