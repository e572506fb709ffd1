"""The format "CVAT for images 1.1": one annotations.xml, with <box> and <polygon> in pixels.

Polygons, ellipses, masks, cuboids and rotated boxes are replaced by their bounding boxes. Points, lines and skeletons
enclose no area and are faults. Tags belong to the whole image and are left out. Classes are the labels of the task, in
their order, without the parts of skeletons. CVAT's COCO, VOC and YOLO exports are read in their own formats.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET  # only for the types: parse.py parses

from retinanet.formats.annotated_image import AnnotatedImage, AnnotatedObject
from retinanet.formats.annotation_format import AnnotationFormat, Candidate, DataSource, Evidence
from retinanet.formats.builder import DatasetBuilder, ReadOptions
from retinanet.formats.class_selection import ClassSelection
from retinanet.formats.geometry import box_around, box_around_rotated, turn_box
from retinanet.formats.image_files import ImageFinder, image_size
from retinanet.formats.records import DataError, DetectionData
from retinanet.formats.text import finite_number
from retinanet.formats.xml_fields import xml_fields
from retinanet.images import ImageError
from retinanet.parse import ParseError, parse_xml, shorten

_SHAPES: Final = ("box", "polygon", "ellipse", "mask", "polyline", "points", "cuboid", "skeleton")
_CUBOID_CORNERS: Final = tuple(f"{row}{column}{side}" for row in "tb" for column in "lr" for side in "12")
"""Corners of a cuboid. Its attributes xtl1 and ytl1 are the coordinates of the corner tl1."""
FILE_NAME: Final = "annotations.xml"


def is_cvat(source: Path) -> bool:
    """Return whether an .xml file begins with CVAT's root element."""
    with source.open("rb") as file:
        head = file.read(2048)
    return b"<annotations" in head


def _recognise_file(source: DataSource) -> Evidence | None:
    return Evidence.OWN_FILE if source.suffix == ".xml" and is_cvat(source.path) else None


def _recognise_folder(folder: DataSource) -> Iterator[Candidate]:
    file = folder.path / FILE_NAME
    if file.is_file() and is_cvat(file):
        yield Candidate(DataSource(file), Evidence.OWN_FILE, f" by its {FILE_NAME}")


def read_cvat(source: DataSource, options: ReadOptions) -> DetectionData:
    """Read an annotations.xml: see `formats.read`. A split selects the project's subset of this name."""
    builder = DatasetBuilder(source.path, options)
    root = _parse(source.path)
    split = options.split
    if root.find("track") is not None:
        raise DataError(
            f"{source.path}: expected CVAT for images, found CVAT for video: export it as 'CVAT for images 1.1'"
        )
    finder = ImageFinder.for_file(source.path, options.images)
    subsets = {(node.get("subset") or "").lower() for node in root.iter("image")}
    for node in root.iter("image"):
        subset = (node.get("subset") or "").lower()
        if split is not None and len(subsets) > 1 and not subset.startswith(split):
            continue
        _read_image(node, builder, finder)
    if tags := sum(1 for _ in root.iterfind("image/tag")):
        builder.notes.append(f"{tags:,} tags of whole images were left out")
    nodes = (node for node in root.iterfind("meta//labels/label") if not (node.findtext("parent") or "").strip())
    labels = [name for node in nodes if (name := (node.findtext("name") or "").strip())]
    return builder.build(list(dict.fromkeys(labels)) or None)


def _parse(source: Path) -> ET.Element:
    try:
        root = parse_xml(source)
    except ParseError as error:
        raise DataError(error.at(source)) from error
    if root.tag != "annotations":
        raise DataError(f"{source}: expected CVAT's <annotations>, found <{shorten(root.tag)[1:-1]}>")
    return root


def _read_image(node: ET.Element, builder: DatasetBuilder, finder: ImageFinder) -> None:
    """Add one image to the builder."""
    name = node.get("name") or ""
    where = f"image {node.get('id', '?')} ({name})"
    shapes = [child for child in node if child.tag in _SHAPES]
    if (path := builder.find_image(finder, name, file=builder.source, where=where, objects=len(shapes))) is None:
        return
    try:
        image = AnnotatedImage(path, *image_size(path, node.get("width"), node.get("height")))
    except ImageError as error:
        what = f"expected the image size, found it neither in the annotations nor in the image ({error})"
        builder.add_image_fault(path, what, file=builder.source, where=where, objects=len(shapes))
        return
    builder.images.append(image)
    image.add_properties(node.attrib, known=("id", "name", "width", "height"))
    for child in node:  # <tag> holds a label and attributes of the whole image
        image.add_properties({**xml_fields(child), "tag": child.get("label") if child.tag == "tag" else None})
    for number, shape in enumerate(shapes, 1):
        result = _parse_object(shape, number, builder.selection)
        builder.add_object(image, result, file=builder.source, where=f"{where}, {shape.tag} {number}")


def _parse_object(shape: ET.Element, number: int, selection: ClassSelection) -> AnnotatedObject | str | None:
    """Return an object, a text that describes its fault, or None if its class is left out."""
    written = (shape.get("label") or "").strip()
    if not written:
        return "expected a label, found none"
    if (name := selection.new_name(written)) is None:
        return None
    if fault := selection.fault(name):
        return fault
    corners = _corners(shape)
    if isinstance(corners, str):
        return corners
    reduced = shape.tag != "box" or bool(finite_number(shape.get("rotation")))
    return AnnotatedObject(number, name, corners, reduced=reduced)


def _corners(shape: ET.Element) -> tuple[float, float, float, float] | str:
    """Return the xyxy bounding box of a shape in pixels, or a text that describes its fault."""
    keys = {"box": ("xtl", "ytl", "xbr", "ybr"), "mask": ("left", "top", "width", "height")}
    keys["ellipse"] = ("cx", "cy", "rx", "ry")
    if shape.tag == "polygon":
        points = [tuple(finite_number(v) for v in point.split(",")) for point in (shape.get("points") or "").split(";")]
        valid = [(p[0], p[1]) for p in points if len(p) == 2 and p[0] is not None and p[1] is not None]
        if len(valid) < len(points):
            return f"expected points x,y;x,y of finite numbers, found {shorten(shape.get('points'))}"
        return box_around(valid)
    if shape.tag == "cuboid":
        xs, ys = ([finite_number(shape.get(f"{axis}{corner}")) for corner in _CUBOID_CORNERS] for axis in "xy")
        corners = [(x, y) for x, y in zip(xs, ys, strict=True) if x is not None and y is not None]
        is_complete = len(corners) == len(_CUBOID_CORNERS)
        return box_around(corners) if is_complete else f"expected 8 corners, found {shorten(dict(shape.attrib))}"
    if shape.tag not in keys:
        return f"expected a box, a polygon, an ellipse or a mask, found {shape.tag}"
    a, b, c, d = (finite_number(shape.get(key)) for key in keys[shape.tag])
    if a is None or b is None or c is None or d is None:
        return f"expected finite numbers in {', '.join(keys[shape.tag])}, found {shorten(dict(shape.attrib))}"
    degrees = finite_number(shape.get("rotation")) or 0.0
    if shape.tag == "mask":
        return a, b, a + c, b + d
    if shape.tag == "ellipse":
        return box_around_rotated(a - c, b - d, 2 * c, 2 * d, degrees, about=(a, b))
    return turn_box((a, b, c, d), degrees)


CVAT: Final = AnnotationFormat(
    name="cvat",
    title="CVAT XML",
    read=read_cvat,
    recognise_file=_recognise_file,
    recognise_folder=_recognise_folder,
)
