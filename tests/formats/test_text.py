"""Text, numbers and JSON of annotation files."""

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


def test_lines_with_their_numbers_without_the_empty_ones(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbffirst \r\n\r\n   \n second\n")  # with the mark that Windows editors put first
    assert list(read_lines(path)) == [(1, "first"), (4, "second")]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="expected UTF-8 text"):
        list(read_lines(path))


def test_json_that_is_none_is_named_with_its_place(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text('{"images": []}')
    assert read_json(path) == {"images": []}
    path.write_text('{"images": [}')
    with pytest.raises(DataError, match=r"a\.json, line 1, column 13: not JSON"):
        read_json(path)
