"""labelme's format: a .json beside each picture, with `shapes` in pixels.

Rectangles are taken as they are; polygons, circles and masks are reduced to the boxes around them; points and lines
enclose no area and are faults.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

from retinanet import images as pictures
from retinanet.formats.coco import read_json
from retinanet.formats.common import ImageEntry, ImageFinder, Labelled, Reading, Wanted, around, number, size_of
from retinanet.formats.records import SKIP_OBJECT, SKIP_PICTURE, DataError, DetectionData, clip_box
from retinanet.parse import shorten

_REDUCED: Final = frozenset(("polygon", "circle", "mask", "oriented_rectangle"))


def is_labelme(content: Any) -> bool:
    """Return whether a parsed JSON file is labelme's."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def read_labelme(
    source: Path, wanted: Wanted, *, images: Path | None = None, allow_outside: bool = False
) -> DetectionData:
    """Read a folder of labelme's files, or one of them: see `formats.read`. Classes are the names found, sorted."""
    reading = Reading(source, wanted, images, allow_outside)
    reduced = 0
    for file in sorted(source.rglob("*.json")) if source.is_dir() else [source]:
        try:
            content = read_json(file)
        except DataError as error:
            reading.fault(file, "", str(error).removeprefix(f"{file}: "), SKIP_PICTURE)
            continue
        if not is_labelme(content):
            what = "expected labelme's `shapes` and `imagePath`, found neither"
            reading.fault(file, "", what, "Move the file elsewhere, or give --skip-bad to go on without it")
            continue
        reduced += _picture(file, content, reading)
    reading.note_reduced(reduced)
    return reading.data()


def _picture(file: Path, content: dict[str, Any], reading: Reading) -> int:
    """Take one file in, and return how many of its shapes were more than a box."""
    finder = ImageFinder([reading.images] if reading.images is not None else [file.parent])
    path = finder.find(str(content.get("imagePath") or f"{file.stem}.jpg"))
    if reading.outside(path, file, ""):
        return 0
    try:
        picture = ImageEntry(path, *size_of(path, content.get("imageWidth"), content.get("imageHeight")))
    except pictures.ImageError as error:
        reading.fault(file, "", f"expected the picture's size, found it nowhere ({error})", SKIP_PICTURE)
        return 0
    reading.pictures.append(picture)
    reduced, shapes = 0, content["shapes"]
    for place, shape in enumerate(shapes, 1):
        result = _object(shape, place, picture, reading.wanted)
        if isinstance(result, Labelled):
            picture.objects.append(result)
            reduced += shape.get("shape_type") in _REDUCED
        elif result is not None:
            reading.fault(file, f"shape {place} of {len(shapes)}", result, SKIP_OBJECT)
    return reduced


def _object(shape: Any, place: int, picture: ImageEntry, wanted: Wanted) -> Labelled | str | None:
    """Return an object, what is wrong with it, or None if it is not wanted."""
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"]:
        return "expected a shape with a text `label`, found none"
    if (name := wanted.name(shape["label"])) is None:
        return None
    if fault := wanted.fault(name):
        return fault
    kind = shape.get("shape_type") or "polygon"
    entries = shape["points"] if isinstance(shape.get("points"), list) else []
    points = []
    for point in entries:
        x, y = (number(value) for value in point) if isinstance(point, list) and len(point) == 2 else (None, None)
        if x is None or y is None:
            return f"expected points (x, y) of finite numbers, found {shorten(point)}"
        points.append((x, y))
    needed = {"rectangle": 2, "mask": 2, "circle": 2, "oriented_rectangle": 3, "polygon": 3}.get(str(kind))
    if needed is None:
        return f"expected a rectangle, a polygon or a circle, found {shorten(kind)}"
    if len(points) < needed:
        return f"expected {needed} points or more of a {kind}, found {len(points)}"
    if kind == "circle":
        (x, y), edge = points[0], points[1]
        radius = math.dist((x, y), edge)
        points = [(x - radius, y - radius), (x + radius, y + radius)]
    box = clip_box(around(points), picture.width, picture.height)
    return box if isinstance(box, str) else Labelled(place, name, box)
