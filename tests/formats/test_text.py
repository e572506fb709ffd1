"""Tests of reading text, numbers and JSON."""

from pathlib import Path

import pytest

from retinanet.formats.records import DataError
from retinanet.formats.text import finite_number, read_json, read_lines


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((3, 3.0), ("2.5", 2.5), (" 1e2 ", 100.0), (True, None), (None, None), ("", None), ("one", None)),
        *(([], None), ("nan", None), (float("inf"), None), (10**400, None)),
    ],
)
def test_finite_numbers(value: object, number: float | None):
    assert finite_number(value) == number


def test_read_lines_skips_empty_lines(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbffirst \r\n\r\n   \n second\n")  # with a byte order mark, as Windows editors write
    assert list(read_lines(path)) == [(1, "first"), (4, "second")]
    path.write_bytes(b"\xfc")
    with pytest.raises(DataError, match="expected UTF-8 text"):
        list(read_lines(path))


def test_invalid_json_is_reported_with_its_position(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text('{"images": []}')
    assert read_json(path) == {"images": []}
    path.write_text('{"images": [}')
    with pytest.raises(DataError, match=r"a\.json, line 1, column 13: not JSON"):
        read_json(path)
