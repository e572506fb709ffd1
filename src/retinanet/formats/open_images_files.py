"""The CSV files of Open Images: rows by the names of the columns, class names, and labels of whole images.

Files of Open Images have millions of lines, so rows are read one at a time.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from retinanet.files import text_encoding
from retinanet.formats.annotation_format import SPLIT_NAMES
from retinanet.formats.folder_walk import files_in
from retinanet.formats.records import DataError
from retinanet.formats.text import finite_number

if TYPE_CHECKING:
    from pathlib import Path

BOX_COLUMNS: Final = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
"""Columns that every file of boxes has."""
LABEL_COLUMNS: Final = ("ImageID", "LabelName", "Confidence")
"""Columns that every file with labels of whole images has."""
_FIFTYONE: Final = ("metadata", "classes.csv")
"""Folder and name of FiftyOne's file with the class names."""
_VERIFIED_FROM: Final = 1.0
"""Confidence of a class that a person saw in the image. A confidence of 0 means that a person did not see it."""


def columns_of(file: Path) -> dict[str, int]:
    """Return the index of each column that the first line of a CSV file names; empty for a file that is no text."""
    try:
        _, cells = next(_rows(file), (0, []))
    except (DataError, OSError):
        return {}
    return {cell.strip(): index for index, cell in enumerate(cells)}


def has_boxes(file: Path) -> bool:
    """Return whether a CSV file holds boxes of Open Images."""
    return columns_of(file).keys() >= set(BOX_COLUMNS)


def rows_by_name(file: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the line number and the cells, by the names of their columns, of each line after the header.

    A cell is missing if the line is shorter than the header.

    Raises:
        DataError: the file is not CSV in UTF-8 or UTF-16.
    """
    names: list[str] | None = None
    for line, cells in _rows(file):
        if names is None:
            names = [cell.strip() for cell in cells]
        else:
            yield line, dict(zip(names, map(str.strip, cells), strict=False))


def class_names(file: Path) -> dict[str, str]:
    """Return the name of each class id, such as /m/01g317: Person, from the files around a file of boxes.

    The files are class-descriptions-boxable.csv and others of this kind, or FiftyOne's metadata/classes.csv. Without
    such a file, the result is empty. Classes of a file for boxes come first.
    """
    above = file.absolute().parent
    folders = (above, above.parent, above.parent / "metadata", above / "metadata")
    files = dict.fromkeys(f for folder in folders for f in files_in(folder, ".csv"))
    found = [f for f in files if "class-descriptions" in f.name or (f.parent.name, f.name) == _FIFTYONE]
    names: dict[str, str] = {}
    for description in sorted(found, key=lambda path: ("boxable" not in path.name, path)):
        for line, cells in _rows(description):
            if len(cells) != 2:
                raise DataError(
                    f"{description}, line {line}: expected a class id and a class name, found {len(cells)} columns"
                )
            label, name = (cell.strip() for cell in cells)
            if label != "LabelName" and name:
                names.setdefault(label, name)
    return names


def labels_of_images(file: Path, names: Mapping[str, str]) -> Iterator[tuple[str, str, bool]]:
    """Yield image id, class name, and whether a person saw the class in the image, from files beside a file of boxes.

    The files are those with `imagelabels` in their name, without the labels of machines, or FiftyOne's
    classifications.csv. Of a dataset with splits, the file of the same split is read.

    Args:
        file: file of the boxes.
        names: name of each class id.
    """
    split = split_of(file)
    for path in files_in(file.parent, ".csv"):
        is_labels = ("imagelabels" in path.name and "machine" not in path.name) or path.name == "classifications.csv"
        if not is_labels or split_of(path) != split or not columns_of(path).keys() >= set(LABEL_COLUMNS):
            continue
        for _, row in rows_by_name(path):
            confidence = finite_number(row.get("Confidence"))
            if confidence in (0.0, _VERIFIED_FROM) and "ImageID" in row and "LabelName" in row:
                yield row["ImageID"], names.get(row["LabelName"], row["LabelName"]), confidence == _VERIFIED_FROM


def split_of(file: Path) -> str | None:
    """Return the split in the name of a file, such as val for validation-annotations-bbox.csv, or None."""
    words = file.stem.lower().replace("_", "-").split("-")
    return next((split for split, names in SPLIT_NAMES.items() if not set(names).isdisjoint(words)), None)


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of each line that is not empty. Raises `DataError`."""
    with file.open("rb") as start:
        encoding = text_encoding(start.read(4))
    try:
        with file.open(encoding=encoding, newline="") as text:
            reader = csv.reader(text)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, cells
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: expected UTF-8 text ({error})") from error
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: not CSV ({error})") from error
