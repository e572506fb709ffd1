"""Read a CSV file with attributes of images: one line for each image of a dataset.

Encodings and separators are those of CSV annotations: UTF-8 or UTF-16; comma, semicolon or tab.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet.errors import list_names
from retinanet.evaluate.ground_truth import FAULTS_SHOWN, EvaluationError, list_faults
from retinanet.formats.csv_table import IMAGE_NAMES, SEPARATORS, Table
from retinanet.formats.image_files import AmbiguousImageError
from retinanet.formats.record_ids import ids_in
from retinanet.formats.records import DataError
from retinanet.formats.text import read_text
from retinanet.parse import shorten

if TYPE_CHECKING:
    from retinanet.data import DetectionData


@dataclass(frozen=True, kw_only=True)
class AttributeTable:
    """Attributes of all images of a dataset.

    Args:
        path: CSV file.
        columns: for each attribute, the text of each image id, stripped; "" for an empty cell.
        lines: lines of the file.
        notes: sentences for the user.
    """

    path: Path
    columns: Mapping[str, Mapping[int, str]]
    lines: Table
    notes: tuple[str, ...] = ()

    def number(self, text: str) -> float | None:
        """Return a cell as a finite number, see `Table.number`, or None for another text."""
        return self.lines.number(text)


def read_attribute_table(path: Path, data: DetectionData) -> AttributeTable:
    """Return the attributes of the images of a dataset.

    An image is named by the end of its path, its file name with or without suffix, or its image id. Lines of images
    that the data lacks are left out with a note, as long as each image of the data has a line.

    Raises:
        EvaluationError: the file cannot be read, has no attribute, repeats an image, lacks an image of the data, or has
            a line with another number of cells. The message lists the first such lines.
    """
    table = _read_lines(path)
    place = table.column_of["path"]
    lines: dict[str, tuple[int, list[str]]] = {}
    faults = []
    for line, row in table.rows:
        name = row[place].strip() if place < len(row) else ""
        if len(row) != len(table.names):
            faults.append(f"line {line}: expected {len(table.names)} cells as in the header, found {len(row)}")
        elif not name:
            faults.append(f"line {line}: expected the name of an image in column {place + 1}, found none")
        elif name in lines:
            faults.append(f"line {line}: expected each image once, found {shorten(name)} in line {lines[name][0]}, too")
        else:
            lines[name] = line, row
    _refuse(path, faults, table)
    ids = _match(path, {name: line for name, (line, _) in lines.items()}, data)
    first: dict[int, int] = {}
    for name, image_id in ids.items():
        if image_id is not None and (other := first.setdefault(image_id, lines[name][0])) != lines[name][0]:
            faults.append(f"line {lines[name][0]}: {shorten(name)} is the image of line {other}: remove one of the two")
    _refuse(path, faults, table)
    unknown = [f"line {lines[name][0]}: {shorten(name)}" for name, image_id in ids.items() if image_id is None]
    _require_all_images(path, first, unknown, data)
    columns = {
        name: {image_id: lines[key][1][index].strip() for key, image_id in ids.items() if image_id is not None}
        for index, name in enumerate(table.names)
        if index != place
    }
    note = f"{path}: lines of images that the data lacks were left out: {len(unknown):,} ({_few(unknown)})"
    return AttributeTable(path=path, columns=columns, lines=table, notes=(note,) if unknown else ())


def _read_lines(path: Path) -> Table:
    """Return the lines of a file. The column of the images is called `path` in `column_of`."""
    try:
        text = read_text(path)
    except OSError as error:
        raise EvaluationError(f"the attributes of the images cannot be read ({error.strerror}): {path}") from error
    except DataError as error:
        raise EvaluationError(str(error)) from error
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(SEPARATORS, key=lambda separator: len(_cells(first, separator)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise EvaluationError(f"{path}, line {reader.line_num}: not CSV ({error})") from error
    header = [cell.strip() for cell in rows[0][1]] if rows else []
    known = [header_name.lower() for header_name in header]
    place = next((known.index(name) for name in IMAGE_NAMES if name in known), 0)
    names = [name or f"column {index}" for index, name in enumerate(header, 1)]
    where = f"{path}, line {rows[0][0]}" if rows else str(path)
    expected = f"{where}: expected a header with a column for the image and one or more attributes"
    if len(names) < 2:
        found = f"one column, {shorten(names[0])}" if names else "an empty file"
        raise EvaluationError(f"{expected}, found {found}. Write for example image,weather in the first line")
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise EvaluationError(f"{expected}, found the column {list_names(repeated)} twice: rename one of the two")
    return Table(rows[1:], separator, {"path": place}, 0, names)


def _cells(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []


def _match(path: Path, lines: Mapping[str, int], data: DetectionData) -> dict[str, int | None]:
    """Return the image id of each name: by the end of the path, or otherwise by the image id or the name's stem.

    Args:
        path: CSV file.
        lines: line number of each name.
        data: dataset.
    """
    try:
        ids = dict(zip(lines, ids_in(data.records, list(lines)), strict=True))
    except AmbiguousImageError as error:
        numbers = [str(line) for name, line in lines.items() if Path(name) in error.paths or f"{name!r}," in str(error)]
        where = f" (lines {', '.join(numbers)})" if numbers else ""
        raise EvaluationError(f"{path}: {error}{where}. Write more of the path of each image") from error
    times = Counter(record.path.stem for record in data.records)
    others: dict[str, int] = {r.path.stem: r.image_id for r in data.records if times[r.path.stem] == 1}
    others |= {str(record.image_id): record.image_id for record in data.records}
    return {name: others.get(name) if image_id is None else image_id for name, image_id in ids.items()}


def _require_all_images(path: Path, found: Mapping[int, Any], unknown: list[str], data: DetectionData) -> None:
    missing = [record.path.name for record in data.records if record.image_id not in found]
    if not missing:
        return
    lines = f", and {len(unknown):,} lines with images that the data lacks ({_few(unknown)})" if unknown else ""
    raise EvaluationError(
        f"{path}: expected a line for each of {len(data.records):,} images of {data.source.name}, found none for "
        f"{len(missing):,} images ({list_names(missing)}){lines}. Correct the names, or add lines with empty cells"
    )


def _refuse(path: Path, faults: list[str], table: Table) -> None:
    if faults:
        raise EvaluationError(f"{path}: {list_faults(faults, len(table.rows), 'lines')}")


def _few(texts: list[str]) -> str:
    return "; ".join(texts[:FAULTS_SHOWN]) + ("; ..." if len(texts) > FAULTS_SHOWN else "")
