"""The Pascal VOC format: one .xml for each picture.

Coordinates are taken as they stand, xmin, ymin, xmax, ymax as edges in pixels from 0. VOC's own pictures count pixels
from 1 and include the last one, but the tools that write VOC today (labelImg, CVAT, Roboflow) write edges; this
project has no "+1" anywhere, and to guess by file would shift some of them.

Objects marked `difficult` are neither to be found nor to be punished, as in VOC's own evaluation: crowd_G is true.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple
from xml.etree import ElementTree as ET  # for the types: parsing is defusedxml's

import numpy as np
from defusedxml import ElementTree as SafeET
from defusedxml.common import DefusedXmlException

from retinanet import images as pictures
from retinanet.data.records import (
    SKIP_OBJECT,
    SKIP_PICTURE,
    DataError,
    DetectionData,
    Fault,
    Record,
    clip_box,
    unknown_class,
)

PICTURE_SUFFIXES: Final = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".ppm", ".pgm", ".avif"),
)
_SPLIT_LINE: Final = re.compile(r"^(?P<stem>.*?)(?:\s+(?:-1|0|1))?$")
"""A line of a split: a stem, and in the class-specific files of VOC itself a further 1, 0 or -1."""
_COORDINATES: Final = ("xmin", "ymin", "xmax", "ymax")


class _Object(NamedTuple):
    number: int
    name: str
    box: tuple[float, float, float, float]
    difficult: bool


class _Picture(NamedTuple):
    path: Path
    width: int
    height: int
    objects: list[_Object]


def is_voc(folder: Path) -> bool:
    """Return whether a folder looks like Pascal VOC: Annotations/, or .xml files in the folder itself."""
    return (folder / "Annotations").is_dir() or next(folder.glob("*.xml"), None) is not None


def read_voc(source: Path, *, images: Path | None = None, classes: Sequence[str] | None = None) -> DetectionData:
    """Read a Pascal VOC folder or split: see `formats.read`. Category ids are 1, 2, ... in the order of the classes.

    Args:
        source: a folder with Annotations/ and JPEGImages/, or with .xml files beside their pictures, for all that is
            in it; a file such as ImageSets/Main/train.txt for the pictures that it names, one a line.
        images: folder of the pictures, if it is another.
        classes: the class list to use; by default the names found, sorted.
    """
    faults: list[Fault] = []
    root = source if source.is_dir() else _root_of(source)
    annotations = root / "Annotations" if (root / "Annotations").is_dir() else root
    files = sorted(annotations.glob("*.xml")) if source.is_dir() else _split(source, annotations, faults)
    finder = _Finder([images] if images is not None else [root / "JPEGImages", root / "images", annotations])
    found = [picture for file in files if (picture := _read_file(file, finder, classes, faults))]
    names = tuple(classes) if classes is not None else tuple(sorted({o.name for p in found for o in p.objects}))
    return DetectionData(
        records=tuple(_record(image_id, picture, names) for image_id, picture in enumerate(found, 1)),
        classes=names,
        category_ids=tuple(range(1, len(names) + 1)),
        source=source,
        faults=tuple(faults),
    )


def _root_of(split: Path) -> Path:
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


def _split(source: Path, annotations: Path, faults: list[Fault]) -> list[Path]:
    """Return the .xml files that a split names, in its order."""
    files: dict[Path, int] = {}
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: expected UTF-8 text, one picture a line ({error})") from error
    for number, line in enumerate(lines, 1):
        match = _SPLIT_LINE.match(line.strip())
        if match is None or not (stem := match["stem"]):
            continue
        if Path(stem).suffix.lower() in PICTURE_SUFFIXES:
            stem = stem[: -len(Path(stem).suffix)]
        file = annotations / f"{stem}.xml"
        advice = SKIP_PICTURE
        if file in files:
            what = f"{stem!r} stands in line {files[file]} already"
            advice = "Remove one of the lines, or give --skip-bad to use the picture once"
        elif not file.is_file():
            what = f"expected the annotations of {stem!r} in {file}, found no such file"
        else:
            files[file] = number
            continue
        faults.append(Fault(file=source, where=f"line {number}", what=what, advice=advice))
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
                if path.suffix.lower() in PICTURE_SUFFIXES:
                    self.by_stem.setdefault(path.stem, []).append(path)

    def find(self, file: Path, written: str) -> Path:
        """Return the path of the picture; where there is none, the one it should have."""
        with_stem = self.by_stem.get(file.stem, [])
        suffix = Path(written).suffix.lower()
        same_suffix = [path for path in with_stem if path.suffix.lower() == suffix]
        named = [place / written for place in self.places if written and (place / written).is_file()]
        return [*same_suffix, *with_stem, *named, self.places[0] / (written or f"{file.stem}.jpg")][0]


def _read_file(file: Path, finder: _Finder, classes: Sequence[str] | None, faults: list[Fault]) -> _Picture | None:
    """Read one .xml; None with a fault where nothing of it can be used."""
    try:
        root = SafeET.parse(file).getroot()
    except ET.ParseError as error:
        line, column = error.position
        what, where = f"not XML ({str(error).split(':')[0]})", f"line {line}, column {column + 1}"
        faults.append(Fault(file=file, where=where, what=what, advice=SKIP_PICTURE))
        return None
    except (DefusedXmlException, ValueError, LookupError) as error:  # entities; an encoding that does not exist
        faults.append(Fault(file=file, where="", what=f"XML that cannot be read ({error})", advice=SKIP_PICTURE))
        return None
    if root is None or root.tag != "annotation":
        what = f"expected <annotation> of Pascal VOC, found <{root.tag if root is not None else ''}>"
        faults.append(Fault(file=file, where="", what=what, advice=SKIP_PICTURE))
        return None
    written = (root.findtext("filename") or "").strip().replace("\\", "/")
    path = finder.find(file, Path(written).name)
    width, height = (_number(root.findtext(f"size/{side}")) or 0 for side in ("width", "height"))
    if min(width, height) < 1:
        try:
            width, height = pictures.read_size(path)
        except pictures.ImageError as error:
            what = f"expected the picture's size, found it neither in <size> nor in the picture ({error})"
            faults.append(Fault(file=file, where="", what=what, advice=SKIP_PICTURE))
            return None
    objects: list[_Object] = []
    nodes = root.findall("object")
    for number, node in enumerate(nodes, 1):
        result = _object(node, number, int(width), int(height), classes)
        if isinstance(result, _Object):
            objects.append(result)
        else:
            faults.append(Fault(file=file, where=f"object {number} of {len(nodes)}", what=result, advice=SKIP_OBJECT))
    return _Picture(path, int(width), int(height), objects)


def _object(node: ET.Element, number: int, width: int, height: int, classes: Sequence[str] | None) -> _Object | str:
    """Return an object, or what is wrong with it."""
    name = (node.findtext("name") or "").strip()
    if not name:
        return "expected a class in <name>, found none"
    if classes is not None and name not in classes:
        return unknown_class(name, classes)
    if node.find("bndbox") is None:
        return "expected a <bndbox>, found none"
    texts = [node.findtext(f"bndbox/{key}") for key in _COORDINATES]
    numbers = [_number(text) for text in texts]
    for key, text, value in zip(_COORDINATES, texts, numbers, strict=True):
        if value is None:
            return f"expected a number in <{key}>, found {'none' if text is None else repr(text)}"
    x1, y1, x2, y2 = (value for value in numbers if value is not None)
    box = clip_box((x1, y1, x2, y2), width, height)
    if isinstance(box, str):
        return box
    difficult = (node.findtext("difficult") or "0").strip().lower() not in {"0", "false", ""}
    return _Object(number, name, box, difficult)


def _number(text: str | None) -> float | None:
    """Return a finite number, or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _record(image_id: int, picture: _Picture, names: Sequence[str]) -> Record:
    objects = picture.objects
    boxes_G4 = np.array([o.box for o in objects], np.float64).reshape(-1, 4)
    return Record(
        path=picture.path,
        width=picture.width,
        height=picture.height,
        boxes_G4=boxes_G4,
        labels_G=np.array([names.index(o.name) for o in objects], np.int64),
        crowd_G=np.array([o.difficult for o in objects], np.bool_),
        areas_G=(boxes_G4[:, 2] - boxes_G4[:, 0]) * (boxes_G4[:, 3] - boxes_G4[:, 1]),
        annotation_ids=tuple(o.number for o in objects),
        image_id=image_id,
    )
