"""Read text, numbers and JSON from annotation files."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from retinanet import files
from retinanet.formats.records import DataError
from retinanet.parse import ParseError, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST_SIDE: Final = 2**31 - 1
"""Maximum width and height of an image, and maximum class id, in an annotation file."""
_DIGITS: Final = re.compile(r"[+-]?[0-9]{1,20}")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raise `DataError` with the position if the file is not JSON."""
    try:
        return parse_json(path.read_bytes())
    except ParseError as error:
        raise DataError(error.at(path)) from error


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte order mark, which PowerShell and Excel write.

    Raises:
        DataError: the file has another encoding.
    """
    try:
        return files.read_text(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text ({error})") from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number, from 1, and the stripped text of each non-empty line.

    Raises:
        DataError: the file is neither UTF-8 nor UTF-16.
    """
    for line_number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            yield line_number, line.strip()


def finite_number(value: Any) -> float | None:
    """Return a number or a text such as " 3 " or "1e2" as a finite float, or None for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and "_" in value:  # Python reads "1_0" as 10
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def integer(value: Any) -> int | None:
    """Return an integer also if it is written as 1.0, "1", "1.0" or " 1 ", or None for any other value."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):  # exact beyond the 53 bits of a float
        return int(value)
    number = finite_number(value)
    return int(number) if number is not None and number.is_integer() else None


def word(value: Any) -> str | None:
    """Return a text, or a number as text, without surrounding spaces. Return None for any other or empty value."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    return str(value).strip() or None


def truth(value: Any) -> bool | None:
    """Return whether a flag such as `iscrowd` or <difficult> is set; None for a value that is no flag.

    A missing, null or empty flag, and "Unspecified", which labelling tools write, are not set.
    """
    text = "" if value is None else str(value).strip().lower()
    if text in {"", "unspecified", "none", "null", "false", "no"} or finite_number(text) == 0:
        return False
    return True if text in {"true", "yes"} or finite_number(text) == 1 else None
