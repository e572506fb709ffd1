"""The labelme format: one .json beside each image, with `shapes` in pixels.

Polygons, circles and masks are replaced by their bounding boxes. Points and lines enclose no area and are faults.
X-AnyLabeling adds shapes (rotated boxes, quadrilaterals, cuboids) and the flag `difficult`: such objects are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from retinanet.formats.annotated_image import AnnotatedImage, AnnotatedObject
from retinanet.formats.annotation_format import AnnotationFormat, Candidate, DataSource, Evidence
from retinanet.formats.builder import DatasetBuilder, ReadOptions
from retinanet.formats.class_selection import ClassSelection
from retinanet.formats.folder_walk import walk
from retinanet.formats.geometry import box_around
from retinanet.formats.image_files import FileIndex, ImageFinder, image_size
from retinanet.formats.records import SKIP_IMAGE, DataError, DetectionData
from retinanet.formats.text import finite_number, read_json, truth, word
from retinanet.images import IMAGE_SUFFIXES, ImageError
from retinanet.parse import shorten

_IMAGE_FIELDS: Final = frozenset(("version", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"))
_SHAPE_FIELDS: Final = frozenset(("label", "points", "shape_type", "group_id", "mask"))
_MIN_POINTS: Final = {
    **{"rectangle": 2, "mask": 2, "circle": 2},
    **{"polygon": 3, "oriented_rectangle": 3, "rotation": 3, "quadrilateral": 3, "cuboid": 3},
}
"""Smallest number of points of each kind of shape that encloses an area."""


def is_labelme(content: Any) -> bool:
    """Return whether parsed JSON is a labelme file."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def _recognise_file(source: DataSource) -> Evidence | None:
    return Evidence.OWN_FILE if source.suffix == ".json" and is_labelme(source.json) else None


def _recognise_folder(folder: DataSource) -> Iterator[Candidate]:
    if (first := folder.first_json) is not None and is_labelme(first.json):
        yield Candidate(folder, Evidence.FILES, " by the .json files in it")


def read_labelme(source: DataSource, options: ReadOptions) -> DetectionData:
    """Read a folder of labelme files, or one file: see `formats.read`. Classes are the sorted labels."""
    builder = DatasetBuilder(source.path, options)
    files = [source.path]
    if source.path.is_dir():
        searched = walk(source.path, {".json"})
        files = searched.files
        builder.note_left_out(searched.left_out)
    place = source.path if source.path.is_dir() else source.path.parent
    index = FileIndex([place if options.images is None else options.images], IMAGE_SUFFIXES)
    for file in files:
        try:
            content = read_json(file)
        except DataError as error:
            builder.add_fault(file, "", str(error).removeprefix(f"{file}: "), SKIP_IMAGE)
            continue
        if not is_labelme(content):
            what = "expected labelme's `shapes` and `imagePath`, found neither"
            builder.add_fault(file, "", what, "Move the file elsewhere, or leave it out with --skip-invalid")
            continue
        _read_image(file, content, builder, index)
    return builder.build()


def _read_image(file: Path, content: dict[str, Any], builder: DatasetBuilder, index: FileIndex) -> None:
    """Add the image of one file to the builder."""
    finder = ImageFinder([file.parent if builder.options.images is None else builder.options.images], index)
    name = str(content.get("imagePath") or f"{file.stem}.jpg")
    shapes = content["shapes"]
    if (path := builder.find_image(finder, name, file=file, where="", near=file.parent, objects=len(shapes))) is None:
        return
    try:
        image = AnnotatedImage(path, *image_size(path, content.get("imageWidth"), content.get("imageHeight")))
    except ImageError as error:
        what = f"expected the image size, found it neither in the file nor in the image ({error})"
        builder.add_image_fault(path, what, file=file, where="", objects=len(shapes))
        return
    builder.images.append(image)
    image.add_properties(content, known=_IMAGE_FIELDS)
    for number, shape in enumerate(shapes, 1):
        image.add_properties(shape if isinstance(shape, dict) else {}, known=_SHAPE_FIELDS)
        result = _parse_object(shape, number, builder.selection)
        builder.add_object(image, result, file=file, where=f"shape {number} of {len(shapes)}")


def _parse_object(shape: Any, number: int, selection: ClassSelection) -> AnnotatedObject | str | None:
    """Return an object, a text that describes its fault, or None if its class is left out."""
    if not isinstance(shape, dict) or (written := word(shape.get("label"))) is None:
        return "expected a shape with a text `label`, found none"
    if (name := selection.new_name(written)) is None:
        return None
    if fault := selection.fault(name):
        return fault
    kind = shape.get("shape_type") or "polygon"
    entries = shape["points"] if isinstance(shape.get("points"), list) else []
    points = []
    for point in entries:
        x, y = (
            (finite_number(value) for value in point) if isinstance(point, list) and len(point) == 2 else (None, None)
        )
        if x is None or y is None:
            return f"expected points (x, y) of finite numbers, found {shorten(point)}"
        points.append((x, y))
    needed = _MIN_POINTS.get(str(kind))
    if needed is None:
        return f"expected a rectangle, a polygon or a circle, found {shorten(kind)}"
    if len(points) < needed:
        return f"expected at least {needed} points for a {kind}, found {len(points)}"
    if kind == "circle":
        (x, y), edge = points[0], points[1]
        radius = math.dist((x, y), edge)
        points = [(x - radius, y - radius), (x + radius, y + radius)]
    if (difficult := truth(shape.get("difficult"))) is None:
        return f"expected true or false as `difficult`, found {shorten(shape['difficult'])}"
    return AnnotatedObject(number, name, box_around(points), difficult, reduced=kind != "rectangle")


LABELME: Final = AnnotationFormat(
    name="labelme",
    title="labelme",
    read=read_labelme,
    recognise_file=_recognise_file,
    recognise_folder=_recognise_folder,
    reads_folder=True,
)
