"""The Pascal VOC format: one .xml file per image.

xmin, ymin, xmax, ymax are read without change, as edges in pixels from 0. The original VOC datasets count pixels from 1
and include the last pixel, but current tools (labelImg, CVAT, Roboflow) write edges. The two cannot be told apart.

Objects marked `difficult` are ignored (crowd_G is true), as in the VOC evaluation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final
from xml.etree import ElementTree as ET  # to write, and for the types: parse.py parses

from retinanet.files import AllowedFolders, is_file
from retinanet.formats.annotated_image import AnnotatedImage, AnnotatedObject
from retinanet.formats.annotation_format import (
    SPLIT_NAMES,
    AnnotationFormat,
    Candidate,
    DataSource,
    Evidence,
    FormatWriter,
)
from retinanet.formats.box_numbers import Box
from retinanet.formats.builder import DatasetBuilder, ReadOptions
from retinanet.formats.class_selection import ClassSelection
from retinanet.formats.folder_walk import files_in, walk
from retinanet.formats.geometry import box_around, box_around_rotated, turn_box
from retinanet.formats.image_files import (
    AMBIGUOUS_ADVICE,
    AmbiguousImageError,
    FileIndex,
    image_size,
    is_list_of_images,
)
from retinanet.formats.output import WriteTarget, common_class_ids, exact_number, write_text
from retinanet.formats.records import SKIP_IMAGE, DataError, DetectionData, Record
from retinanet.formats.text import finite_number, read_lines, truth
from retinanet.formats.voc_images import VocImageFinder, images_without_annotations, written_paths
from retinanet.formats.xml_fields import xml_fields
from retinanet.images import IMAGE_SUFFIXES, ImageError
from retinanet.parse import ParseError, parse_xml, shorten

CLASS_FILE: Final = "classes.txt"
"""Class list with one class per line, beside Annotations/. It extends VOC; `retinanet convert` writes it."""
_SPLIT_LINE: Final = re.compile(r"^(?P<stem>.*?)(?:\s+(?:-1|0|1))?$")
"""Line of a split file: a file stem and, in the class-specific files of VOC, 1, 0 or -1."""
_IMAGE_FIELDS: Final = frozenset(("folder", "filename", "path", "size", "segmented", "object"))
_OBJECT_FIELDS: Final = frozenset(("name", "bndbox", "robndbox", "polygon", "part", "difficult"))
_COORDINATES: Final = ("xmin", "ymin", "xmax", "ymax")


def is_voc(folder: Path) -> bool:
    """Return whether a folder may be Pascal VOC: it holds Annotations/ or .xml files."""
    return (folder / "Annotations").is_dir() or bool(files_in(folder, ".xml"))


def _recognise_file(source: DataSource) -> Evidence | None:
    if source.suffix != ".txt":
        return None
    above = source.path.absolute().parents[:3]
    has_annotations = any((folder / "Annotations").is_dir() for folder in above)
    is_voc_list = has_annotations and not any((folder / "labels").is_dir() for folder in above)
    return Evidence.COMMON_NAME if is_voc_list or not is_list_of_images(source.path) else None


def _recognise_folder(folder: DataSource) -> Iterator[Candidate]:
    annotations = folder.path / "Annotations"
    if annotations.is_dir() and not (files_in(annotations, ".json") and not files_in(annotations, ".xml")):
        yield Candidate(folder, Evidence.OWN_FOLDER)
    # A folder with an annotations.xml is CVAT's: its other .xml files are no evidence of VOC.
    if files_in(folder.path, ".xml") and not (folder.path / "annotations.xml").is_file():
        yield Candidate(folder, Evidence.FILES, " by the .xml files in it")


def _splits_in_folder(folder: Path) -> dict[str, Path]:
    """Return the train, val and test lists of a folder if they name all its images, otherwise nothing."""
    lists = {name: folder / "ImageSets" / "Main" / f"{name}.txt" for name in SPLIT_NAMES}
    present = {name: path for name, path in lists.items() if path.is_file()}
    listed = {Path(text.split()[0]).name for path in present.values() for _, text in read_lines(path)}
    stems = {path.stem for path in walk(folder / "Annotations", {".xml"}).files} if present else set()
    return present if stems <= listed | {Path(name).stem for name in listed} else {}


def read_voc(source: DataSource, options: ReadOptions) -> DetectionData:
    """Read a Pascal VOC folder or split: see `formats.read`. Category ids are 1, 2, ... in the order of the classes.

    Classes are the lines of classes.txt or, without this file, the sorted class names of the objects. Subfolders of
    Annotations/ correspond to subfolders of JPEGImages/.

    Args:
        source: a folder with Annotations/ and JPEGImages/, or with .xml files beside their images; or a file such as
            ImageSets/Main/train.txt that names one image per line.
        options: options of the reader.
    """
    path, images = source.path, options.images
    root = path if path.is_dir() else root_of(path)
    builder = DatasetBuilder(path, options, root=root)
    annotations = root / "Annotations" if (root / "Annotations").is_dir() else root
    index = FileIndex([annotations], {".xml"}, by_stem=True)
    files = sorted(index.files) if path.is_dir() else _listed_files(builder, annotations, index)
    places = [images] if images is not None else [root / "JPEGImages", root / "images", annotations]
    finder = VocImageFinder(places, annotations)
    for file in files:
        if (image := _read_file(file, finder, builder)) is not None:
            builder.images.append(image)
    if path.is_dir() and images is None:
        for image_path, expected in images_without_annotations(builder, finder, files, annotations):
            what = f"expected annotations in {expected}, found no such file"
            advice = "If the image has no objects, write an .xml without objects; or leave it out with --skip-invalid"
            builder.add_fault(image_path, "", what, advice)
    builder.note_left_out(index.left_out)
    builder.note_left_out(finder.by_stem.left_out)
    class_file = root / CLASS_FILE
    return builder.build([name for _, name in read_lines(class_file)] if class_file.is_file() else None)


def root_of(split: Path) -> Path:
    """Return the folder above a split file that holds Annotations/, or the file's folder if it holds .xml files."""
    above = split.absolute().parents
    for folder in above[:3]:
        if (folder / "Annotations").is_dir():
            return folder
    if is_voc(above[0]):
        return above[0]
    raise DataError(f"no Annotations/ in {above[0]} or above it, expected for a split of a Pascal VOC folder: {split}")


def _listed_files(builder: DatasetBuilder, annotations: Path, index: FileIndex) -> list[Path]:
    """Return the .xml files that a split file lists, in its order."""
    files: dict[Path, int] = {}
    allowed = AllowedFolders.around(annotations)
    for line_number, line in read_lines(builder.source):
        match = _SPLIT_LINE.match(line)
        if match is None or not (stem := match["stem"].replace("\\", "/")):
            continue
        if is_file(annotations / f"{line}.xml"):  # the name of the image ends with " 1"
            stem = line
        if PurePosixPath(stem).suffix.lower() in IMAGE_SUFFIXES:
            stem = stem[: -len(PurePosixPath(stem).suffix)]
        file, what = _annotations_of(stem, annotations, index, allowed)
        advice = SKIP_IMAGE
        if what is None and file in files:
            what = f"expected every image once, found {stem!r} also in line {files[file]}"
            advice = "Remove one of the lines, or give --skip-invalid to use the image once"
        if what is not None:
            builder.add_fault(builder.source, f"line {line_number}", what, advice)
        else:
            files[file] = line_number
    return list(files)


def _annotations_of(stem: str, annotations: Path, index: FileIndex, allowed: AllowedFolders) -> tuple[Path, str | None]:
    """Return the .xml file of an image in a split file, and the fault of the line, or None."""
    file = annotations / f"{stem}.xml"
    if not allowed.contains(file):
        return file, f"expected the name of an image, found {shorten(stem)}, which is outside of {annotations}"
    if is_file(file):
        return file, None
    _, files = index.best_matches(stem)
    if len(files) > 1:
        names = ", ".join(map(str, files[:4]))
        return file, f"expected the annotations of one image {stem!r}, found {len(files)} that match equally: {names}"
    return (files[0], None) if files else (file, f"expected the annotations of {stem!r} in {file}, found no such file")


def _read_file(file: Path, finder: VocImageFinder, builder: DatasetBuilder) -> AnnotatedImage | None:
    """Return the image of one .xml file with its objects. If it is invalid, add a fault and return None."""
    try:
        root = parse_xml(file)
    except ParseError as error:
        builder.add_fault(file, error.where, error.what, SKIP_IMAGE)
        return None
    if root.tag != "annotation":
        what = f"expected <annotation> of Pascal VOC, found <{shorten(root.tag)[1:-1]}>"
        builder.add_fault(file, "", what, SKIP_IMAGE)
        return None
    nodes = root.findall("object")
    try:
        found = finder.find(file, written_paths(root))
    except AmbiguousImageError as error:
        builder.add_fault(file, "", str(error), AMBIGUOUS_ADVICE)
        builder.objects_without_image += len(nodes)
        return None
    own_path = finder.own_path(file).as_posix()
    if (path := builder.add_found_image(found, own_path, file=file, where="", objects=len(nodes))) is None:
        return None
    try:
        width, height = image_size(path, *(root.findtext(f"size/{side}") for side in ("width", "height")))
    except ImageError as error:
        what = f"expected the image size, found it neither in <size> nor in the image ({error})"
        builder.add_image_fault(path, what, file=file, where="", objects=len(nodes))
        return None
    image = AnnotatedImage(path, width, height)
    image.add_properties(xml_fields(root, known=_IMAGE_FIELDS))
    for number, node in enumerate(nodes, 1):
        image.add_properties(xml_fields(node, known=_OBJECT_FIELDS))
        result = _parse_object(node, number, builder.selection)
        builder.add_object(image, result, file=file, where=f"object {number} of {len(nodes)}")
    return image


def _parse_object(node: ET.Element, number: int, selection: ClassSelection) -> AnnotatedObject | str | None:
    """Return an object, a text that describes its fault, or None if its class is left out."""
    written = (node.findtext("name") or "").strip()
    if not written:
        return "expected a class in <name>, found none"
    if (name := selection.new_name(written)) is None:
        return None
    if fault := selection.fault(name):
        return fault
    if (difficult := truth(node.findtext("difficult"))) is None:
        return f"expected 0 or 1 in <difficult>, found {shorten(node.findtext('difficult'))}"
    if node.find("bndbox") is not None:
        corners = _numbers(node, "bndbox", _COORDINATES)
        if isinstance(corners, str):
            return corners
        degrees = _rotation(node)
        return AnnotatedObject(number, name, turn_box(corners, degrees), difficult, reduced=bool(degrees))
    corners = _corners_of_shape(node)
    return corners if isinstance(corners, str) else AnnotatedObject(number, name, corners, difficult, reduced=True)


def _rotation(node: ET.Element) -> float:
    """Return the clockwise rotation of a box about its centre, in degrees: an attribute that CVAT writes."""
    texts = (a.findtext("value") for a in node.iterfind("attributes/attribute") if a.findtext("name") == "rotation")
    return next((number for text in texts if (number := finite_number(text)) is not None), 0.0)


def _numbers(node: ET.Element, parent: str, keys: Sequence[str]) -> Box | str:
    """Return the four numbers of an element, or a text that describes their fault."""
    texts = [node.findtext(f"{parent}/{key}") for key in keys]
    numbers = [finite_number(text) for text in texts]
    for key, text, value in zip(keys, texts, numbers, strict=True):
        if value is None:
            return f"expected a number in <{key}>, found {'none' if text is None else shorten(text)}"
    a, b, c, d = (value for value in numbers if value is not None)
    return a, b, c, d


def _corners_of_shape(node: ET.Element) -> Box | str:
    """Return the xyxy box around a shape without <bndbox>, or a text that describes its fault.

    The shape is a <polygon> with <x1>, <y1>, <x2>, ... (Roboflow) or with <pt> (LabelMe), or a rotated <robndbox>
    (roLabelImg) with its angle in radians.
    """
    if node.find("robndbox") is not None:
        found = _numbers(node, "robndbox", ("cx", "cy", "w", "h"))
        angle = finite_number(node.findtext("robndbox/angle"))
        if isinstance(found, str) or angle is None:
            return found if isinstance(found, str) else "expected a number in <angle>, found none"
        x, y, w, h = found
        return box_around_rotated(x - w / 2, y - h / 2, w, h, math.degrees(angle), about=(x, y))
    polygon = node.find("polygon")
    if polygon is None:
        return "expected a <bndbox>, found none"
    leaves = [leaf for leaf in polygon.iter() if re.fullmatch(r"[xy]\d*", leaf.tag)]
    xs = [finite_number(leaf.text) for leaf in leaves if leaf.tag[0] == "x"]
    ys = [finite_number(leaf.text) for leaf in leaves if leaf.tag[0] == "y"]
    points = [(x, y) for x, y in zip(xs, ys, strict=False) if x is not None and y is not None]
    if len(points) < max(3, len(xs), len(ys)):
        return f"expected at least 3 points of finite numbers in <polygon>, found {len(points)}"
    return box_around(points)


def write_voc(splits: Mapping[str, DetectionData], target: WriteTarget) -> dict[str, Path]:
    """Write an .xml file for each image, an image list for each split, and the class list. Return each split's path."""
    written = {}
    for name, data in splits.items():
        for record, image_path in zip(data.records, target.images[name], strict=True):
            write_text(target.folder / "Annotations" / f"{image_path.stem}.xml", _xml(data, record, image_path))
        if name:
            stems = "".join(f"{path.stem}\n" for path in target.images[name])
            written[name] = write_text(target.folder / "ImageSets" / "Main" / f"{name}.txt", stems)
        else:
            written[name] = target.folder
    write_text(target.folder / CLASS_FILE, "".join(f"{name}\n" for name in common_class_ids(splits)))
    return written


def _xml(data: DetectionData, record: Record, image_path: Path) -> str:
    """Return the text of the .xml file of one image."""
    root = ET.Element("annotation")
    for tag, value in (("folder", image_path.parent.name), ("filename", image_path.name)):
        ET.SubElement(root, tag).text = value
    size = ET.SubElement(root, "size")
    for tag, number in (("width", record.width), ("height", record.height), ("depth", 3)):
        ET.SubElement(size, tag).text = str(number)
    for box, label, crowd in zip(record.boxes_G4.tolist(), record.labels_G.tolist(), record.crowd_G, strict=True):
        node = ET.SubElement(root, "object")
        ET.SubElement(node, "name").text = data.classes[label]
        ET.SubElement(node, "difficult").text = str(int(crowd))
        corners = ET.SubElement(node, "bndbox")
        for tag, value in zip(_COORDINATES, box, strict=True):
            ET.SubElement(corners, tag).text = exact_number(value)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


VOC: Final = AnnotationFormat(
    name="voc",
    title="Pascal VOC",
    read=read_voc,
    recognise_file=_recognise_file,
    recognise_folder=_recognise_folder,
    expects="a Pascal VOC folder or one of its ImageSets .txt files",
    reads_folder=True,
    splits_in_folder=_splits_in_folder,
    writer=FormatWriter(
        write=write_voc,
        not_stored=frozenset(("category_ids", "image_ids", "areas", "annotation_ids")),
        image_folder="JPEGImages",
        folder_per_split=False,
        images_found_by="name",
    ),
)
