"""Read text, numbers and JSON from annotation files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from retinanet.files import read_text
from retinanet.formats.records import DataError
from retinanet.parse import ParseError, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST_SIDE: Final = 2**31 - 1
"""Maximum width and height of an image, and maximum class id, in an annotation file."""


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raise `DataError` with the position if the file is not JSON."""
    try:
        return parse_json(path.read_bytes())
    except ParseError as error:
        raise DataError(error.at(path)) from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number, from 1, and the stripped text of each non-empty line.

    Raises:
        DataError: the file is not UTF-8.
    """
    try:
        text = read_text(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text ({error})") from error
    for line_number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield line_number, line.strip()


def finite_number(value: Any) -> float | None:
    """Return a number or a text as a finite float, or None for any other value."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
