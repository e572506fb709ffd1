"""The Pascal VOC format: one .xml for each picture.

Coordinates are taken as they stand, xmin, ymin, xmax, ymax as edges in pixels from 0. VOC's own pictures count pixels
from 1 and include the last one, but the tools that write VOC today (labelImg, CVAT, Roboflow) write edges; this
project has no "+1" anywhere, and to guess by file would shift some of them.

Objects marked `difficult` are neither to be found nor to be punished, as in VOC's own evaluation: crowd_G is true.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET  # for the types: parsing is parse.py's

from retinanet import images as pictures
from retinanet.formats.common import (
    IMAGE_SUFFIXES,
    Fence,
    ImageEntry,
    Labelled,
    Reading,
    Wanted,
    is_file,
    lines_of,
    number,
    size_of,
)
from retinanet.formats.records import SKIP_OBJECT, SKIP_PICTURE, DataError, DetectionData, clip_box
from retinanet.parse import ParseError, parse_xml, shorten

CLASS_FILE: Final = "classes.txt"
"""A class a line, beside Annotations/: VOC itself has no list of its classes. `retinanet convert` writes it."""
_SPLIT_LINE: Final = re.compile(r"^(?P<stem>.*?)(?:\s+(?:-1|0|1))?$")
"""A line of a split: a stem, and in the class-specific files of VOC itself a further 1, 0 or -1."""
_COORDINATES: Final = ("xmin", "ymin", "xmax", "ymax")


def is_voc(folder: Path) -> bool:
    """Return whether a folder looks like Pascal VOC: Annotations/, or .xml files in the folder itself."""
    return (folder / "Annotations").is_dir() or next(folder.glob("*.xml"), None) is not None


def read_voc(source: Path, wanted: Wanted, *, images: Path | None = None) -> DetectionData:
    """Read a Pascal VOC folder or split: see `formats.read`. Category ids are 1, 2, ... in the order of the classes.

    Classes are those of classes.txt where there is one, else the names found, sorted.

    Args:
        source: a folder with Annotations/ and JPEGImages/, or with .xml files beside their pictures, for all that is
            in it; a file such as ImageSets/Main/train.txt for the pictures that it names, one a line.
        wanted: its classes.
        images: folder of the pictures, if it is another.
    """
    reading = Reading(source, wanted, images)
    root = source if source.is_dir() else root_of(source)
    annotations = root / "Annotations" if (root / "Annotations").is_dir() else root
    files = sorted(annotations.glob("*.xml")) if source.is_dir() else _split(reading, annotations)
    finder = _Finder([images] if images is not None else [root / "JPEGImages", root / "images", annotations])
    for file in files:
        if (picture := _read_file(file, finder, reading)) is not None:
            reading.pictures.append(picture)
    if source.is_dir() and images is None and files:
        _without_annotations(reading, finder, files, annotations)
    listed = root / CLASS_FILE
    return reading.data([name for _, name in lines_of(listed)] if listed.is_file() else None)


def _without_annotations(reading: Reading, finder: _Finder, files: Sequence[Path], annotations: Path) -> None:
    """Note the pictures that have no .xml: in VOC a picture without objects has one too."""
    stems = {file.stem for file in files} | {picture.path.stem for picture in reading.pictures}
    for stem, paths in sorted(finder.by_stem.items()):
        if stem not in stems:
            what = f"expected its annotations in {annotations / stem}.xml, found no such file"
            advice = "Write an .xml without objects if it shows none, or give --skip-bad to go on without this picture"
            reading.fault(paths[0], "", what, advice)


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


def _split(reading: Reading, annotations: Path) -> list[Path]:
    """Return the .xml files that a split names, in its order."""
    files: dict[Path, int] = {}
    for number_of_line, line in lines_of(reading.source):
        match = _SPLIT_LINE.match(line)
        if match is None or not (stem := match["stem"]):
            continue
        if Path(stem).suffix.lower() in IMAGE_SUFFIXES:
            stem = stem[: -len(Path(stem).suffix)]
        file = annotations / f"{stem}.xml"
        advice = SKIP_PICTURE
        if not Fence.around(annotations).holds(file):
            what = f"expected the name of a picture, found {shorten(stem)}, which leads elsewhere"
        elif file in files:
            what = f"{stem!r} stands in line {files[file]} already"
            advice = "Remove one of the lines, or give --skip-bad to use the picture once"
        elif not is_file(file):
            what = f"expected the annotations of {stem!r} in {file}, found no such file"
        else:
            files[file] = number_of_line
            continue
        reading.fault(reading.source, f"line {number_of_line}", what, advice)
    return list(files)


class _Finder:
    """Finds the picture of an .xml: by the stem of the file, whatever the suffix, before the name written inside.

    The name inside often goes stale when files are renamed, and may then lead to another existing picture.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        self.places = [place for place in places if place.is_dir()] or list(places[:1])
        self.by_stem: dict[str, list[Path]] = {}
        for place in self.places:
            for path in sorted(place.iterdir()) if place.is_dir() else ():
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    self.by_stem.setdefault(path.stem, []).append(path)

    def find(self, file: Path, written: str) -> Path:
        """Return the path of the picture; where there is none, the one it should have."""
        with_stem = self.by_stem.get(file.stem, [])
        suffix = Path(written).suffix.lower()
        same_suffix = [path for path in with_stem if path.suffix.lower() == suffix]
        named = [place / written for place in self.places if written and is_file(place / written)]
        return [*same_suffix, *with_stem, *named, self.places[0] / (written or f"{file.stem}.jpg")][0]


def _read_file(file: Path, finder: _Finder, reading: Reading) -> ImageEntry | None:
    """Read one .xml; None with a fault where nothing of it can be used."""
    try:
        root = parse_xml(file)
    except ParseError as error:
        reading.fault(file, error.where, error.what, SKIP_PICTURE)
        return None
    if root.tag != "annotation":
        what = f"expected <annotation> of Pascal VOC, found <{shorten(root.tag)[1:-1]}>"
        reading.fault(file, "", what, SKIP_PICTURE)
        return None
    written = (root.findtext("filename") or "").strip().replace("\\", "/")
    path = finder.find(file, Path(written).name)
    try:
        width, height = size_of(path, *(root.findtext(f"size/{side}") for side in ("width", "height")))
    except pictures.ImageError as error:
        what = f"expected the picture's size, found it neither in <size> nor in the picture ({error})"
        reading.fault(file, "", what, SKIP_PICTURE)
        return None
    picture = ImageEntry(path, width, height)
    nodes = root.findall("object")
    for number_of_object, node in enumerate(nodes, 1):
        result = _object(node, number_of_object, picture, reading.wanted)
        if isinstance(result, Labelled):
            picture.objects.append(result)
        elif result is not None:
            reading.fault(file, f"object {number_of_object} of {len(nodes)}", result, SKIP_OBJECT)
    return picture


def _object(node: ET.Element, number_of_object: int, picture: ImageEntry, wanted: Wanted) -> Labelled | str | None:
    """Return an object, what is wrong with it, or None if it is not wanted."""
    written = (node.findtext("name") or "").strip()
    if not written:
        return "expected a class in <name>, found none"
    if (name := wanted.name(written)) is None:
        return None
    if fault := wanted.fault(name):
        return fault
    if node.find("bndbox") is None:
        return "expected a <bndbox>, found none"
    texts = [node.findtext(f"bndbox/{key}") for key in _COORDINATES]
    numbers = [number(text) for text in texts]
    for key, text, value in zip(_COORDINATES, texts, numbers, strict=True):
        if value is None:
            return f"expected a number in <{key}>, found {'none' if text is None else shorten(text)}"
    x1, y1, x2, y2 = (value for value in numbers if value is not None)
    box = clip_box((x1, y1, x2, y2), picture.width, picture.height)
    if isinstance(box, str):
        return box
    difficult = (node.findtext("difficult") or "0").strip().lower() not in {"0", "false", ""}
    return Labelled(number_of_object, name, box, difficult)
