"""The lines of a CSV file of boxes: encoding, separator, comments, header, and numbers with a decimal comma."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from retinanet.formats.records import DataError
from retinanet.formats.text import finite_number, read_text
from retinanet.parse import shorten

COLUMNS: Final = ("path", "x1", "y1", "x2", "y2", "class")
_ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "path": ("path", "filename", "file_name", "file", "image", "image_path", "img", "image_name", "image_id"),
    "x1": ("x1", "xmin", "x_min", "left"),
    "y1": ("y1", "ymin", "y_min", "top"),
    "x2": ("x2", "xmax", "x_max", "right"),
    "y2": ("y2", "ymax", "y_max", "bottom"),
    "class": ("class", "label", "class_name", "name", "category", "classname"),
    "width": ("width", "image_width", "img_width", "imagewidth"),
    "height": ("height", "image_height", "img_height", "imageheight"),
}
CORNER_NAMES: Final = frozenset(alias for corner in ("x1", "y1", "x2", "y2") for alias in _ALIASES[corner])
"""Names of the columns that hold the box."""
IMAGE_NAMES: Final = _ALIASES["path"]
"""Names of the column that holds the path of the image."""
SEPARATORS: Final = {",": "comma", ";": "semicolon", "\t": "tab"}
_NOT_A_NUMBER: Final = frozenset(("nan", "none", "null"))
_SAMPLE: Final = 100_000
_SAMPLE_LINES: Final = 50
"""Number of characters, and of lines, at the start of a file from which the separator is recognised."""


@dataclass(frozen=True, slots=True)
class Table:
    """The lines of a CSV file.

    Args:
        rows: line number, from 1, and cells of each line, without the header.
        separator: character between two cells.
        column_of: index of each column of `COLUMNS`, and of `width` and `height` if the header has them.
        comments: number of comment lines before the first row.
        names: name of each column, as written in the header; `COLUMNS` without a header.
    """

    rows: list[tuple[int, list[str]]]
    separator: str
    column_of: Mapping[str, int]
    comments: int
    names: Sequence[str] = COLUMNS

    def cells_by_name(self, row: Sequence[str]) -> dict[str, str]:
        """Return the cells of a line by the names of their columns: "column 7" for a column without a name."""
        return {
            self.names[index] if index < len(self.names) and self.names[index] else f"column {index + 1}": cell
            for index, cell in enumerate(row)
        }

    def number(self, text: str) -> float | None:
        """Return a finite number, with a decimal comma if the separator is no comma. Return None for other texts."""
        has_comma = self.separator != "," and text.count(",") == 1 and "." not in text
        return finite_number(text.replace(",", ".") if has_comma else text)

    def is_placeholder(self, row: Sequence[str]) -> bool:
        """Return whether a line is an image without objects: its box is 0,0,0,0 (DeepForest) or NaN (pandas)."""
        if len(row) <= max(self.column_of.values()):
            return False
        cells = (row[self.column_of[name]].strip() for name in ("x1", "y1", "x2", "y2"))
        first = next(cells)
        if first.lower() in _NOT_A_NUMBER:
            return all(cell.lower() in _NOT_A_NUMBER for cell in cells)
        return self.number(first) == 0 and all(self.number(cell) == 0 for cell in cells)

    def notes(self, source: Path) -> list[str]:
        """Return sentences about the separator, the comments and the columns if they are not the usual ones."""
        notes = []
        if self.separator != ",":
            notes.append(f"{source} was read with the separator {SEPARATORS[self.separator]}")
        if self.comments:
            notes.append(f"{source}: {self.comments} lines that start with # were left out as comments")
        if placeholders := sum(self.is_placeholder(row) for _, row in self.rows):
            notes.append(f"{source}: {placeholders:,} lines with 0,0,0,0 or NaN are images without objects")
        if self.column_of["path"] != 0 or self.column_of["class"] != len(COLUMNS) - 1:
            columns = ", ".join(f"column {self.column_of[name] + 1} as {name}" for name in COLUMNS)
            notes.append(f"the header line of {source} was read as: {columns}")
        return notes


def read_table(source: Path) -> Table:
    """Return the lines of a CSV file.

    Raises:
        DataError: the file is neither UTF-8 nor UTF-16, is not CSV, or has a header with other columns.
    """
    text = read_text(source)
    separator = _separator(text)
    rows: list[tuple[int, list[str]]] = []
    column_of: Mapping[str, int] | None = None
    names: Sequence[str] = COLUMNS
    comments = 0
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if rows or column_of is not None:
                rows.append((reader.line_num, row))
                continue
            # numpy writes its header as a comment
            is_comment = row[0].lstrip().startswith("#") and all(finite_number(cell) is None for cell in row[1:])
            header = [row[0].lstrip("# "), *row[1:]] if is_comment else row
            if (column_of := _header(header)) is not None:
                names = [cell.strip() for cell in header]
            comments += is_comment and column_of is None
            if column_of is None and not is_comment:
                _check_is_no_header(row, reader.line_num, source)
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise DataError(f"{source}, line {reader.line_num}: not CSV ({error})") from error
    default_columns = {name: index for index, name in enumerate(COLUMNS)}
    return Table(rows, separator, column_of or default_columns, comments, names)


def _separator(text: str) -> str:
    """Return the separator that splits most of the first lines into enough columns; a comma if none does."""
    lines = [line for line in text[:_SAMPLE].splitlines() if line.strip()][:_SAMPLE_LINES]

    def complete_lines(separator: str) -> int:
        return sum(len(row) >= len(COLUMNS) for row in csv.reader(lines, delimiter=separator))

    try:
        counts = {separator: complete_lines(separator) for separator in SEPARATORS}
    except csv.Error:  # `read_table` names the line
        return ","
    # With a semicolon, decimal commas may split a line into enough columns too.
    best = max(counts, key=lambda separator: (counts[separator], separator != ","))
    return best if counts[best] else ","


def _check_is_no_header(row: Sequence[str], line: int, source: Path) -> None:
    """Raise `DataError` if a first line is a header with other columns: it has several cells and no number."""
    cells = [cell.strip() for cell in row if cell.strip()]
    if len(cells) > 2 and not any(finite_number(cell.replace(",", ".")) is not None for cell in cells):
        aliases = "; ".join(f"{name}: {', '.join(_ALIASES[name])}" for name in COLUMNS)
        raise DataError(
            f"{source}, line {line}: expected a header with the columns {','.join(COLUMNS)}, found the header "
            f"{shorten(','.join(row))}. Rename the columns, and write boxes as two corners in pixels. Known names are "
            f"{aliases}"
        )


def _header(row: Sequence[str]) -> dict[str, int] | None:
    """Return the index of each column if the first line is a header, or None."""
    cells = [cell.strip().lower() for cell in row]
    columns = {
        name: next(cells.index(alias) for alias in aliases if alias in cells)
        for name, aliases in _ALIASES.items()
        if not set(aliases).isdisjoint(cells)
    }
    return columns if columns.keys() >= set(COLUMNS) else None
