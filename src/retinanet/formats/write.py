"""Data sets as files of each format, such that `formats.read` gives back what was written.

What a format cannot hold is listed rather than dropped in silence. A file is written beside its target and renamed.
Shape suffixes: G objects of a picture. Boxes are xyxy in original pixels.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import numpy as np
import yaml

from retinanet.errors import UserError
from retinanet.files import atomic_path, write_atomically
from retinanet.formats import csv as csv_format
from retinanet.formats import voc as voc_format

if TYPE_CHECKING:
    from retinanet.config import ImageFiles, ResultFormat
    from retinanet.formats.records import DetectionData, Record

FOLDERS: Final[dict[str, str]] = {"coco": "images", "voc": "JPEGImages", "yolo": "images", "csv": "images"}
"""Where each format keeps the pictures."""
DIGITS: Final = 17
"""Significant decimal digits that a float64 needs."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written.

    Args:
        files: the annotation file or folder of each split.
        lost: what the format cannot hold, a sentence each.
    """

    files: Mapping[str, Path]
    lost: tuple[str, ...]


def write(
    splits: Mapping[str, DetectionData],
    target: Path,
    format: ResultFormat,
    *,
    pictures: ImageFiles = "copy",
) -> Written:
    """Write the splits of a data set into a folder.

    Args:
        splits: by name, such as train and val; the name may be empty where there is one only.
        target: a folder that is empty or not there. For a single split as COCO or CSV it may be the file itself.
        format: coco, voc, yolo or csv.
        pictures: copy them, link to them (symbolic links), or none: leave them where they are. YOLO and VOC find
            pictures by their place, so that for these two `none` needs `--images` when the data is read.

    Raises:
        UserError: the target is in use.
    """
    as_file = target.suffix.lower() in {".json", ".csv"}
    if as_file and len(splits) > 1:
        raise UserError(f"{target}: the data has the splits {', '.join(splits)}: give a folder")
    folder = target.parent if as_file else target
    if target.is_file() or (not as_file and target.is_dir() and any(target.iterdir())):
        raise UserError(f"{target} is there already: give another, or remove it first")
    folder.mkdir(parents=True, exist_ok=True)
    places = {name: _place(data, folder, name, format, pictures) for name, data in splits.items()}
    writer = {"coco": _coco, "voc": _voc, "yolo": _yolo, "csv": _csv}[format]
    return Written(
        files=writer(splits, places, folder, target if as_file else None),
        lost=tuple(dict.fromkeys(said for data in splits.values() for said in lost(data, format))),
    )


def lost(data: DetectionData, format: ResultFormat) -> Iterator[str]:
    """Yield what of a data set a format cannot hold, a sentence each."""
    if format == "coco":
        return
    crowd = data.num_crowd
    if crowd and format in {"yolo", "csv"}:
        yield f"{format} has no crowd or difficult objects: {crowd:,} of them were left out"
    if data.category_ids != tuple(range(1, len(data.classes) + 1)):
        yield f"{format} has no category ids: they become 1 to {len(data.classes)} in the order of the classes"
    if [record.image_id for record in data.records] != list(range(1, len(data.records) + 1)):
        yield f"{format} has no picture ids: pictures are numbered"
    own = sum(int((~np.isclose(record.areas_G, _areas(record), rtol=1e-6, atol=1e-6)).sum()) for record in data.records)
    if own:
        yield f"{format} has no areas of objects: {own:,} areas of masks become those of the boxes"
    ids = [i for record in data.records for i in record.annotation_ids]
    if len(set(ids)) == len(ids) and ids and len(data.records) > 1 and data.source.suffix.lower() == ".json":
        yield f"{format} has no annotation ids: objects are numbered"


def _areas(record: Record) -> Any:
    return (record.boxes_G4[:, 2:] - record.boxes_G4[:, :2]).prod(axis=1)


def _place(data: DetectionData, folder: Path, split: str, format: ResultFormat, pictures: ImageFiles) -> list[Path]:
    """Return where each picture lies afterwards, and put it there."""
    if pictures == "none":
        return [record.path.absolute() for record in data.records]
    root = folder / FOLDERS[format] / (split if format != "voc" else "")
    places = [root / name for name in unique_names([record.path for record in data.records])]
    for record, place in zip(data.records, places, strict=True):
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            raise UserError(f"{place}: two splits hold pictures of this name: convert them one by one")
        if pictures == "link":
            place.symlink_to(record.path.resolve())
        else:
            with atomic_path(place) as partial:
                shutil.copyfile(record.path, partial)
    return places


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Return a file name for each path: its own where that is unique by stem, else with its folders before it."""
    stems = Counter(path.stem.casefold() for path in paths)
    names, taken = [], set()
    for path in paths:
        name = path.name if stems[path.stem.casefold()] == 1 else "_".join(path.parts[-2:]).replace("/", "_")
        stem, suffix, count = Path(name).stem, Path(name).suffix, 1
        while Path(name).stem.casefold() in taken:
            count += 1
            name = f"{stem}-{count}{suffix}"
        taken.add(Path(name).stem.casefold())
        names.append(name)
    return names


def _relative(path: Path, folder: Path) -> str:
    """Return the path as seen from the folder; absolute where it would climb further than readers follow."""
    relative = Path(os.path.relpath(path, folder))
    return (path.absolute() if relative.parts[:2] == ("..", "..") else relative).as_posix()


def _coco(
    splits: Mapping[str, DetectionData], places: Mapping[str, list[Path]], folder: Path, file: Path | None
) -> dict[str, Path]:
    written = {}
    for name, data in splits.items():
        path = file or folder / f"{name or 'annotations'}.json"
        content = data.to_coco()
        for image, place in zip(content["images"], places[name], strict=True):
            image["file_name"] = _relative(place, path.parent)
        written[name] = _write(path, json.dumps(content, ensure_ascii=False))
    return written


def _voc(
    splits: Mapping[str, DetectionData], places: Mapping[str, list[Path]], folder: Path, _: Path | None
) -> dict[str, Path]:
    written = {}
    for name, data in splits.items():
        for record, place in zip(data.records, places[name], strict=True):
            _write(folder / "Annotations" / f"{place.stem}.xml", _voc_xml(data, record, place))
        if name:
            stems = "".join(f"{place.stem}\n" for place in places[name])
            written[name] = _write(folder / "ImageSets" / "Main" / f"{name}.txt", stems)
        else:
            written[name] = folder
    _write(folder / voc_format.CLASS_FILE, "".join(f"{name}\n" for name in _common_classes(splits)))
    return written


def _voc_xml(data: DetectionData, record: Record, place: Path) -> str:
    root = ET.Element("annotation")
    for tag, value in (("folder", place.parent.name), ("filename", place.name)):
        ET.SubElement(root, tag).text = value
    size = ET.SubElement(root, "size")
    for tag, number in (("width", record.width), ("height", record.height), ("depth", 3)):
        ET.SubElement(size, tag).text = str(number)
    for box, label, crowd in zip(record.boxes_G4.tolist(), record.labels_G.tolist(), record.crowd_G, strict=True):
        node = ET.SubElement(root, "object")
        ET.SubElement(node, "name").text = data.classes[label]
        ET.SubElement(node, "difficult").text = str(int(crowd))
        corners = ET.SubElement(node, "bndbox")
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            ET.SubElement(corners, tag).text = _number(value)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _yolo(
    splits: Mapping[str, DetectionData], places: Mapping[str, list[Path]], folder: Path, _: Path | None
) -> dict[str, Path]:
    content: dict[str, Any] = {}
    classes = _common_classes(splits)
    for name, data in splits.items():
        content[name or "train"] = f"images/{name}".rstrip("/")
        for record, place in zip(data.records, places[name], strict=True):
            lines = []
            for box, label in _objects(data, record):
                x1, y1, x2, y2 = box
                W, H = record.width, record.height
                shares = ((x1 + x2) / 2 / W, (y1 + y2) / 2 / H, (x2 - x1) / W, (y2 - y1) / H)
                lines.append(f"{classes[label]} {' '.join(f'{share:.{DIGITS}g}' for share in shares)}\n")
            _write(folder / "labels" / name / f"{place.stem}.txt", "".join(lines))
    content["names"] = {number: name for name, number in classes.items()}
    file = _write(folder / "data.yaml", yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
    return {name: file.with_name(f"{file.name}#{name}") if name else file for name in splits}


def _csv(
    splits: Mapping[str, DetectionData], places: Mapping[str, list[Path]], folder: Path, file: Path | None
) -> dict[str, Path]:
    written = {}
    for name, data in splits.items():
        path = file or folder / f"{name or 'annotations'}.csv"
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        for record, place in zip(data.records, places[name], strict=True):
            picture = _relative(place, path.parent)
            objects = list(_objects(data, record))
            rows.writerows([picture, *map(_number, box), label] for box, label in objects)
            if not objects:
                rows.writerow([picture, "", "", "", "", ""])
        written[name] = _write(path, text.getvalue())
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(_common_classes(splits).items())
    _write(folder / csv_format.CLASS_FILE, text.getvalue())
    return written


def _common_classes(splits: Mapping[str, DetectionData]) -> dict[str, int]:
    """Return the id from 0 of each class name."""
    names = dict.fromkeys(name for data in splits.values() for name in data.classes)
    return {name: number for number, name in enumerate(names)}


def _objects(data: DetectionData, record: Record) -> Iterator[tuple[list[float], str]]:
    """Yield box and class of the objects that are no crowd."""
    for box, label, crowd in zip(record.boxes_G4.tolist(), record.labels_G.tolist(), record.crowd_G, strict=True):
        if not crowd:
            yield box, data.classes[label]


def _number(value: float) -> str:
    """Return a number as short as it can be read back exactly."""
    return repr(int(value)) if value == int(value) else repr(value)


def _write(path: Path, text: str) -> Path:
    write_atomically(path, text)
    return path
