"""Tests of reading text, numbers and JSON."""

from pathlib import Path

import pytest

from retinanet.formats.records import DataError
from retinanet.formats.text import finite_number, integer, read_json, read_lines, truth, word


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((3, 3.0), ("2.5", 2.5), (" 1e2 ", 100.0), (True, None), (None, None), ("", None), ("one", None)),
        *(("1_0", None), (b"1", None)),
        *(([], None), ("nan", None), (float("inf"), None), (10**400, None)),
    ],
)
def test_finite_numbers(value: object, number: float | None):
    assert finite_number(value) == number


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((3, 3), (3.0, 3), ("3", 3), ("3.0", 3), (" 3 ", 3), ("-07", -7), ("9007199254740993", 9007199254740993)),
        *((3.5, None), (True, None), (None, None), ("", None), ("three", None), ("1_0", None), (float("nan"), None)),
    ],
)
def test_integers(value: object, number: int | None):
    assert integer(value) == number


def test_words_and_flags():
    assert [word(value) for value in (" cat ", 7, 1.5, "", "  ", None, True, ["cat"])] == [
        *("cat", "7", "1.5"),
        *(None, None, None, None, None),
    ]
    assert [truth(value) for value in (None, "", 0, "0", 0.0, False, "False", "Unspecified")] == [False] * 8
    assert [truth(value) for value in (1, "1", True, " true ", "1.0")] == [True] * 5
    assert [truth(value) for value in (2, "maybe", [])] == [None] * 3


def test_read_lines_skips_empty_lines(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbffirst \r\n\r\n   \n second\n")  # with a byte order mark, as Windows editors write
    assert list(read_lines(path)) == [(1, "first"), (4, "second")]
    path.write_text("ä first\r\n", encoding="utf-16")  # as PowerShell writes
    assert list(read_lines(path)) == [(1, "ä first")]
    path.write_bytes(b"\xe4 first")
    with pytest.raises(DataError, match="expected UTF-8 text"):
        list(read_lines(path))


def test_invalid_json_is_reported_with_its_position(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text('{"images": []}')
    assert read_json(path) == {"images": []}
    path.write_text('{"images": [}')
    with pytest.raises(DataError, match=r"a\.json, line 1, column 13: not JSON"):
        read_json(path)
