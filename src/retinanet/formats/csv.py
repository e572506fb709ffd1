"""The CSV format of keras-retinanet: `path,x1,y1,x2,y2,class`, a line for each object, xyxy in pixels.

A picture without objects has the line `path,,,,,`. A header line is recognised, and then the columns may come in any
order (Roboflow's `filename,width,height,class,xmin,ymin,xmax,ymax`); quotes work as in any CSV. Paths are relative to
the file's folder, or to `images`. The class list is that of a file `class,id` beside it (`<name>_classes.csv` or
`classes.csv`), as keras-retinanet takes it, else the names found, sorted.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from retinanet import images as pictures
from retinanet.formats.common import ImageEntry, ImageFinder, Labelled, Reading, Wanted, is_file, lines_of, number
from retinanet.formats.records import SKIP_OBJECT, SKIP_PICTURE, DataError, DetectionData, clip_box
from retinanet.parse import shorten

COLUMNS: Final = ("path", "x1", "y1", "x2", "y2", "class")
CLASS_FILE: Final = "classes.csv"
_ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "path": ("path", "filename", "file_name", "file", "image", "image_path", "img", "image_name", "image_id"),
    "x1": ("x1", "xmin", "x_min", "left"),
    "y1": ("y1", "ymin", "y_min", "top"),
    "x2": ("x2", "xmax", "x_max", "right"),
    "y2": ("y2", "ymax", "y_max", "bottom"),
    "class": ("class", "label", "class_name", "name", "category", "classname"),
}


def read_csv(source: Path, wanted: Wanted, *, images: Path | None = None, allow_outside: bool = False) -> DetectionData:
    """Read a CSV file: see `formats.read`. Category ids are 1, 2, ... in the order of the classes."""
    reading = Reading(source, wanted, images, allow_outside)
    finder = ImageFinder([images] if images is not None else [source.parent, source.parent / "images"])
    found: dict[str, ImageEntry | None] = {}
    place: Mapping[str, int] = {name: index for index, name in enumerate(COLUMNS)}
    line = 1
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for row in reader:
                line = reader.line_num
                if not any(cell.strip() for cell in row):
                    continue
                if line == 1 and (header := _header(row)) is not None:
                    place = header
                    continue
                _row(row, f"line {line}", line, place, reading, finder, found)
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: expected UTF-8 text ({error})") from error
    except csv.Error as error:
        raise DataError(f"{source}, line {line}: not CSV ({error})") from error
    if place["path"] != 0 or place["class"] != len(COLUMNS) - 1:
        columns = ", ".join(f"column {place[name] + 1} as {name}" for name in COLUMNS)
        reading.notes.append(f"by its header line, {columns}")
    reading.pictures = [picture for picture in found.values() if picture is not None]
    return reading.data(_class_list(source))


def _header(row: Sequence[str]) -> dict[str, int] | None:
    """Return the place of each column if a first line names them, else None."""
    cells = [cell.strip().lower() for cell in row]
    found = {
        name: next((cells.index(alias) for alias in aliases if alias in cells), -1)
        for name, aliases in _ALIASES.items()
    }
    if min(found[name] for name in ("path", "x1", "y1", "x2", "y2")) < 0:
        return None
    return found if found["class"] >= 0 else None


def _class_list(source: Path) -> list[str] | None:
    """Return the class names of keras-retinanet's file `class,id` beside the annotations, by their ids."""
    for path in (source.with_name(f"{source.stem}_classes.csv"), source.with_name(CLASS_FILE)):
        if not path.is_file() or path == source:
            continue
        ids: dict[int, str] = {}
        for line, text in lines_of(path):
            try:
                row = [cell.strip() for cell in next(csv.reader([text]))]
            except csv.Error as error:
                raise DataError(f"{path}, line {line}: not CSV ({error})") from error
            label = number(row[1]) if len(row) == 2 else None
            if label is None or label < 0 or not label.is_integer():
                if line == 1 and len(row) == 2:  # a header
                    continue
                raise DataError(f"{path}, line {line}: expected `class,id`, found {shorten(text)}")
            if int(label) in ids or row[0] in ids.values():
                raise DataError(f"{path}, line {line}: the class or id {shorten(text)} is there already")
            ids[int(label)] = row[0]
        return [ids[i] for i in sorted(ids)]
    return None


def _row(
    row: Sequence[str],
    where: str,
    line: int,
    place: Mapping[str, int],
    reading: Reading,
    finder: ImageFinder,
    found: dict[str, ImageEntry | None],
) -> None:
    """Take one line in, or note what is wrong with it."""
    if len(row) <= max(place.values()):
        what = f"expected {','.join(COLUMNS)}, found {len(row)} columns: {','.join(row)!r}"
        reading.fault(reading.source, where, what, SKIP_OBJECT)
        return
    name = row[place["path"]].strip()
    if not name:
        reading.fault(reading.source, where, "expected the path of a picture, found none", SKIP_OBJECT)
        return
    if name not in found:
        path = finder.find(name)
        try:
            if reading.outside(path, reading.source, where):
                found[name] = None
                return
            found[name] = ImageEntry(path, *pictures.read_size(path))
        except pictures.ImageError as error:
            found[name] = None
            what = f"picture not found at {path}" if not is_file(path) else str(error)
            reading.fault(reading.source, where, what, SKIP_PICTURE)
    picture = found[name]
    cells = [row[place[corner]].strip() for corner in ("x1", "y1", "x2", "y2")]
    written = row[place["class"]].strip()
    if picture is None or not any((*cells, written)):
        return
    result = _object(cells, written, picture, reading.wanted, line)
    if isinstance(result, Labelled):
        picture.objects.append(result)
    elif result is not None:
        reading.fault(reading.source, where, result, SKIP_OBJECT)


def _object(
    cells: Sequence[str], written: str, picture: ImageEntry, wanted: Wanted, line: int
) -> Labelled | str | None:
    """Return an object, what is wrong with it, or None if it is not wanted."""
    if not written:
        return "expected a class, found none"
    if (name := wanted.name(written)) is None:
        return None
    if fault := wanted.fault(name):
        return fault
    x1, y1, x2, y2 = (number(cell) for cell in cells)
    if x1 is None or y1 is None or x2 is None or y2 is None:
        return f"expected four finite numbers x1,y1,x2,y2, found {','.join(cells)!r}"
    box = clip_box((x1, y1, x2, y2), picture.width, picture.height)
    return box if isinstance(box, str) else Labelled(line, name, box)
