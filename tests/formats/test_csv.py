"""Tests of the CSV reader: headers, quotes, class lists and faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinanet import data
from retinanet.data import DataError
from tests.formats.samples import CAT, EXPECTED, H, W, Write, boxes


def write_rows(root: Path, write_image: Write, text: str, name: str = "a.csv") -> Path:
    for image in ("a", "b"):
        write_image(root / f"{image}.jpg", W, H, seed=ord(image))
    (root / name).write_text(text)
    return root / name


def test_csv_with_and_without_a_header(tmp_path: Path, write_image: Write) -> None:
    text = "a.jpg,1,2,30,40,cat\na.jpg,10.5,4.25,20.25,40,dog\nb.jpg,,,,,\n"
    assert boxes(data.load(write_rows(tmp_path, write_image, text))) == EXPECTED
    assert boxes(data.load(write_rows(tmp_path, write_image, f"path,x1,y1,x2,y2,class\n{text}"))) == EXPECTED


def test_quotes_and_commas_in_names(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "a, b.jpg", W, H)
    found = data.load(write_rows(tmp_path, write_image, '"a, b.jpg",1,2,30,40,"cat, big"\n'))
    assert boxes(found) == {"a, b.jpg": [("cat, big", CAT)]}


def test_the_class_file_gives_the_class_order(tmp_path: Path, write_image: Write) -> None:
    file = write_rows(tmp_path, write_image, "a.jpg,1,2,30,40,cat\n")
    (tmp_path / "classes.csv").write_text("dog,0\ncat,1\n")
    assert data.load(file).classes == ("dog", "cat")
    (tmp_path / "classes.csv").write_text("dog,0\ncat\n")
    with pytest.raises(DataError, match=r"classes\.csv, line 2: expected `class,id`"):
        data.load(file)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg,1,2,30,40", r"a\.csv, line 2: expected path,x1,y1,x2,y2,class, found 5 columns"),
        ("a.jpg,1,2,x,40,cat", r"line 2: expected four finite numbers"),
        ("a.jpg,1,2,30,40,", r"line 2: expected a class"),
        ("a.jpg,30,2,1,40,cat", r"line 2: expected a box with an area above 0"),
        ("gone.jpg,1,2,3,4,cat", r"a\.csv, line 2: image not found at .*gone\.jpg"),
        (",1,2,3,4,cat", r"line 2: expected the path of an image"),
    ],
)
def test_an_invalid_line_is_reported(tmp_path: Path, write_image: Write, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data.load(write_rows(tmp_path, write_image, f"a.jpg,1,2,30,40,cat\n{line}\n"))
