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
    (tmp_path / "classes.csv").write_text("class;id\ndog;0\ncat;1.0\n")
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


def test_the_rows_of_an_image_with_a_fault_are_counted(tmp_path: Path, write_image: Write) -> None:
    rows = "a.jpg,1,2,30,40,cat\n" + "gone.jpg,1,2,3,4,cat\n" * 3 + "gone.jpg,,,,,\n"
    found = data.load(write_rows(tmp_path, write_image, rows), skip_invalid=True)
    assert len(found.faults) == 1
    assert "3 objects of images with a fault were left out" in found.notes


def test_the_advice_for_a_missing_image_depends_on_the_given_folder(tmp_path: Path, write_image: Write) -> None:
    file = write_rows(tmp_path, write_image, "a.jpg,1,2,30,40,cat\ngone.jpg,1,2,3,4,cat\n")
    with pytest.raises(DataError, match=r"gone\.jpg\. Put the image at this path, give its folder with --images"):
        data.load(file)
    with pytest.raises(
        DataError, match=rf"gone\.jpg\. Put the image into {tmp_path}, the folder of --images, which was"
    ):
        data.load(file, images=tmp_path)


@pytest.mark.parametrize("header", ["filename;xmin;ymin;xmax;ymax;class\n", ""], ids=["header", "no header"])
@pytest.mark.parametrize(
    ("separator", "row"),
    [
        (";", "a.jpg;1,0;2;30;40;cat\na.jpg;10,5;4,25;20,25;40;dog\nb.jpg;;;;;\n"),
        ("\t", "a.jpg\t1\t2\t30\t40\tcat\na.jpg\t10.5\t4,25\t20.25\t40\tdog\nb.jpg\t\t\t\t\t\n"),
    ],
    ids=["semicolon", "tab"],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_separators_and_decimal_commas(
    header: str, separator: str, row: str, encoding: str, tmp_path: Path, write_image: Write
) -> None:
    """Excel writes semicolons and decimal commas in many countries, and UTF-16 with tabs as "Unicode text"."""
    file = write_rows(tmp_path, write_image, "")
    file.write_text(header.replace(";", separator) + row, encoding=encoding)
    found = data.load(file)
    assert boxes(found) == EXPECTED
    assert any("separator" in note for note in found.notes)


def test_a_header_with_other_columns_is_refused_once(tmp_path: Path, write_image: Write) -> None:
    file = write_rows(tmp_path, write_image, "filename,class,x,y,width,height\na.jpg,cat,1,2,30,40\n")
    with pytest.raises(
        DataError, match="line 1: expected a header with .*found the header 'filename,class,x,y"
    ) as caught:
        data.load(file)
    assert caught.value.faults == ()


def test_comment_lines_before_the_rows(tmp_path: Path, write_image: Write) -> None:
    text = "# made by a tool\n# path,x1,y1,x2,y2,class\na.jpg,1,2,30,40,cat\na.jpg,10.5,4.25,20.25,40,dog\nb.jpg,,,,,\n"
    found = data.load(write_rows(tmp_path, write_image, text))
    assert boxes(found) == EXPECTED
    assert any("1 lines that start with # were left out" in note for note in found.notes)


def test_declared_sizes_are_compared_with_the_images(tmp_path: Path, write_image: Write) -> None:
    """keras-retinanet#930: the images were made smaller after annotation."""
    header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    wrong = f"{header}a.jpg,{2 * W},{2 * H},cat,1,2,30,40\nb.jpg,{W},{H},cat,1,2,30,40\n"
    with pytest.raises(DataError, match=r"1 fault\n.*a\.jpg: expected 128x96 pixels as annotated, found 64x48"):
        data.load(write_rows(tmp_path, write_image, wrong))
    mixed = f"{header}a.jpg,{W},{H},cat,1,2,30,40\na.jpg,{2 * W},{2 * H},cat,1,2,30,40\n"
    with pytest.raises(DataError, match=r"1 fault\n.*line 3: expected one size of a\.jpg, found 64x48 and 128x96"):
        data.load(write_rows(tmp_path, write_image, mixed))
    sides = f"{header}a.jpg,29,38,cat,1,2,30,40\n"  # the columns hold the sides of the box
    assert boxes(data.load(write_rows(tmp_path, write_image, sides))) == {"a.jpg": [("cat", CAT)]}


@pytest.mark.parametrize("box", ["0,0,0,0", "0.0,0.0,0.0,0.0", "NaN,nan,NaN,NaN"])
def test_placeholders_of_images_without_objects(box: str, tmp_path: Path, write_image: Write) -> None:
    """DeepForest writes 0,0,0,0 for an image without objects, and pandas writes NaN."""
    found = data.load(write_rows(tmp_path, write_image, f"a.jpg,1,2,30,40,cat\nb.jpg,{box},tree\n"))
    assert boxes(found) == {"a.jpg": [("cat", CAT)], "b.jpg": []}
    assert "1 lines with 0,0,0,0 or NaN are images without objects" in " ".join(found.notes)


def test_a_folder_gives_the_file_of_the_requested_split(tmp_path: Path, write_image: Write) -> None:
    write_rows(tmp_path, write_image, "a.jpg,1,2,30,40,cat\n", "train.csv")
    write_rows(tmp_path, write_image, "b.jpg,1,2,30,40,cat\n", "val.csv")
    for split, name in (("train", "a.jpg"), ("val", "b.jpg")):
        assert list(boxes(data.load(tmp_path, split=split))) == [name]
    with pytest.raises(DataError, match="expected the split 'test', found train, val"):
        data.load(f"{tmp_path}#test")


def test_a_name_with_a_back_slash(tmp_path: Path, write_image: Write) -> None:
    """A back-slash is a part of the name if such a file exists, and otherwise the separator of Windows."""
    write_image(tmp_path / "c\\d.jpg", W, H)
    write_image(tmp_path / "e" / "f.jpg", W, H)
    found = data.load(write_rows(tmp_path, write_image, "c\\d.jpg,1,2,30,40,cat\ne\\f.jpg,1,2,30,40,cat\n"))
    assert boxes(found) == {"c\\d.jpg": [("cat", CAT)], "f.jpg": [("cat", CAT)]}
