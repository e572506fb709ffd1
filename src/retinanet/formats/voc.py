"""The Pascal VOC format: one .xml for each image.

Coordinates are taken as they stand, xmin, ymin, xmax, ymax as edges in pixels from 0. VOC's own images count pixels
from 1 and include the last one, but the tools that write VOC today (labelImg, CVAT, Roboflow) write edges; this
project has no "+1" anywhere, and to guess by file would shift some of them.

Objects marked `difficult` are neither to be found nor to be punished, as in VOC's own evaluation: crowd_G is true.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET  # to write, and for the types: parsing is parse.py's

from retinanet.files import AllowedFolders, is_file
from retinanet.formats.annotation_format import (
    SPLIT_NAMES,
    AnnotationFormat,
    Candidate,
    DataSource,
    Evidence,
    FormatWriter,
)
from retinanet.formats.builder import AnnotatedImage, AnnotatedObject, DatasetBuilder, ReadOptions
from retinanet.formats.class_selection import ClassSelection
from retinanet.formats.image_files import image_size, is_list_of_images
from retinanet.formats.output import WriteTarget, common_class_ids, exact_number, write_text
from retinanet.formats.records import SKIP_IMAGE, DataError, DetectionData, Record, clip_box
from retinanet.formats.text import finite_number, read_lines
from retinanet.images import IMAGE_SUFFIXES, ImageError
from retinanet.parse import ParseError, parse_xml, shorten

CLASS_FILE: Final = "classes.txt"
"""A class a line, beside Annotations/: VOC itself has no list of its classes. `retinanet convert` writes it."""
_SPLIT_LINE: Final = re.compile(r"^(?P<stem>.*?)(?:\s+(?:-1|0|1))?$")
"""A line of a split: a stem, and in the class-specific files of VOC itself a further 1, 0 or -1."""
_COORDINATES: Final = ("xmin", "ymin", "xmax", "ymax")


def is_voc(folder: Path) -> bool:
    """Return whether a folder looks like Pascal VOC: Annotations/, or .xml files in the folder itself."""
    return (folder / "Annotations").is_dir() or next(folder.glob("*.xml"), None) is not None


def _recognise_file(source: DataSource) -> Evidence | None:
    return Evidence.COMMON_NAME if source.suffix == ".txt" and not is_list_of_images(source.path) else None


def _recognise_folder(folder: DataSource) -> Iterator[Candidate]:
    if (folder.path / "Annotations").is_dir():
        yield Candidate(folder, Evidence.OWN_FOLDER)
    # Beside an annotations.xml, which is CVAT's, other .xml files are no sign of VOC.
    if next(folder.path.glob("*.xml"), None) is not None and not (folder.path / "annotations.xml").is_file():
        yield Candidate(folder, Evidence.FILES, " by the .xml files in it")


def _splits_in_folder(folder: Path) -> dict[str, Path]:
    """Return the train, val and test lists of a folder, if together they name all of its images."""
    lists = {name: folder / "ImageSets" / "Main" / f"{name}.txt" for name in SPLIT_NAMES}
    present = {name: path for name, path in lists.items() if path.is_file()}
    listed = {Path(text.split()[0]).name for path in present.values() for _, text in read_lines(path)}
    stems = {path.stem for path in (folder / "Annotations").glob("*.xml")}
    return present if stems <= listed | {Path(name).stem for name in listed} else {}


def read_voc(source: DataSource, options: ReadOptions) -> DetectionData:
    """Read a Pascal VOC folder or split: see `formats.read`. Category ids are 1, 2, ... in the order of the classes.

    Classes are those of classes.txt where there is one, else the names found, sorted. `allow_outside` has no effect:
    images are found by their file names alone.

    Args:
        source: a folder with Annotations/ and JPEGImages/, or with .xml files beside their images, for all that is
            in it; a file such as ImageSets/Main/train.txt for the images that it names, one a line.
        options: how it is read.
    """
    path, images = source.path, options.images
    builder = DatasetBuilder(path, options)
    root = path if path.is_dir() else root_of(path)
    annotations = root / "Annotations" if (root / "Annotations").is_dir() else root
    files = sorted(annotations.glob("*.xml")) if path.is_dir() else _split(builder, annotations)
    finder = _Finder([images] if images is not None else [root / "JPEGImages", root / "images", annotations])
    for file in files:
        if (image := _read_file(file, finder, builder)) is not None:
            builder.images.append(image)
    if path.is_dir() and images is None and files:
        _without_annotations(builder, finder, files, annotations)
    listed = root / CLASS_FILE
    return builder.build([name for _, name in read_lines(listed)] if listed.is_file() else None)


def _without_annotations(builder: DatasetBuilder, finder: _Finder, files: Sequence[Path], annotations: Path) -> None:
    """Note the images that have no .xml: in VOC an image without objects has one too."""
    stems = {file.stem for file in files} | {image.path.stem for image in builder.images}
    for stem, paths in sorted(finder.by_stem.items()):
        if stem not in stems:
            what = f"expected its annotations in {annotations / stem}.xml, found no such file"
            advice = "Write an .xml without objects if it shows none, or leave it out with --skip-invalid"
            builder.add_fault(paths[0], "", what, advice)


def root_of(split: Path) -> Path:
    """Return the folder that holds Annotations/ above a split file; the file's own folder if that holds the .xml."""
    above = split.absolute().parents
    for folder in above[:3]:
        if (folder / "Annotations").is_dir():
            return folder
    if is_voc(above[0]):
        return above[0]
    raise DataError(
        f"{split}: expected a split of a Pascal VOC folder, found no Annotations/ in {above[0]} or above it"
    )


def _split(builder: DatasetBuilder, annotations: Path) -> list[Path]:
    """Return the .xml files that a split names, in its order."""
    files: dict[Path, int] = {}
    allowed = AllowedFolders.around(annotations)
    for number_of_line, line in read_lines(builder.source):
        match = _SPLIT_LINE.match(line)
        if match is None or not (stem := match["stem"]):
            continue
        if Path(stem).suffix.lower() in IMAGE_SUFFIXES:
            stem = stem[: -len(Path(stem).suffix)]
        file = annotations / f"{stem}.xml"
        advice = SKIP_IMAGE
        if not allowed.contains(file):
            what = f"expected the name of an image, found {shorten(stem)}, which leads elsewhere"
        elif file in files:
            what = f"{stem!r} stands in line {files[file]} already"
            advice = "Remove one of the lines, or give --skip-invalid to use the image once"
        elif not is_file(file):
            what = f"expected the annotations of {stem!r} in {file}, found no such file"
        else:
            files[file] = number_of_line
            continue
        builder.add_fault(builder.source, f"line {number_of_line}", what, advice)
    return list(files)


class _Finder:
    """Finds the image of an .xml: by the stem of the file, whatever the suffix, before the name written inside.

    The name inside often goes stale when files are renamed, and may then lead to another existing image.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        self.places = [place for place in places if place.is_dir()] or list(places[:1])
        self.by_stem: dict[str, list[Path]] = {}
        for place in self.places:
            for path in sorted(place.iterdir()) if place.is_dir() else ():
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    self.by_stem.setdefault(path.stem, []).append(path)

    def find(self, file: Path, written: str) -> Path:
        """Return the path of the image; where there is none, the one it should have."""
        with_stem = self.by_stem.get(file.stem, [])
        suffix = Path(written).suffix.lower()
        same_suffix = [path for path in with_stem if path.suffix.lower() == suffix]
        named = [place / written for place in self.places if written and is_file(place / written)]
        return [*same_suffix, *with_stem, *named, self.places[0] / (written or f"{file.stem}.jpg")][0]


def _read_file(file: Path, finder: _Finder, builder: DatasetBuilder) -> AnnotatedImage | None:
    """Read one .xml; None with a fault where nothing of it can be used."""
    try:
        root = parse_xml(file)
    except ParseError as error:
        builder.add_fault(file, error.where, error.what, SKIP_IMAGE)
        return None
    if root.tag != "annotation":
        what = f"expected <annotation> of Pascal VOC, found <{shorten(root.tag)[1:-1]}>"
        builder.add_fault(file, "", what, SKIP_IMAGE)
        return None
    written = (root.findtext("filename") or "").strip().replace("\\", "/")
    path = finder.find(file, Path(written).name)
    try:
        width, height = image_size(path, *(root.findtext(f"size/{side}") for side in ("width", "height")))
    except ImageError as error:
        what = f"expected the image's size, found it neither in <size> nor in the image ({error})"
        builder.add_fault(file, "", what, SKIP_IMAGE)
        return None
    image = AnnotatedImage(path, width, height)
    nodes = root.findall("object")
    for number_of_object, node in enumerate(nodes, 1):
        result = _object(node, number_of_object, image, builder.selection)
        builder.add_object(image, result, file=file, where=f"object {number_of_object} of {len(nodes)}")
    return image


def _object(
    node: ET.Element, number_of_object: int, image: AnnotatedImage, selection: ClassSelection
) -> AnnotatedObject | str | None:
    """Return an object, what is wrong with it, or None if it is not wanted."""
    written = (node.findtext("name") or "").strip()
    if not written:
        return "expected a class in <name>, found none"
    if (name := selection.new_name(written)) is None:
        return None
    if fault := selection.fault(name):
        return fault
    if node.find("bndbox") is None:
        return "expected a <bndbox>, found none"
    texts = [node.findtext(f"bndbox/{key}") for key in _COORDINATES]
    numbers = [finite_number(text) for text in texts]
    for key, text, value in zip(_COORDINATES, texts, numbers, strict=True):
        if value is None:
            return f"expected a number in <{key}>, found {'none' if text is None else shorten(text)}"
    x1, y1, x2, y2 = (value for value in numbers if value is not None)
    box = clip_box((x1, y1, x2, y2), image.width, image.height)
    if isinstance(box, str):
        return box
    difficult = (node.findtext("difficult") or "0").strip().lower() not in {"0", "false", ""}
    return AnnotatedObject(number_of_object, name, box, difficult)


def write_voc(splits: Mapping[str, DetectionData], target: WriteTarget) -> dict[str, Path]:
    """Write an .xml for each image, a list of the images of each split, and the class list."""
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
