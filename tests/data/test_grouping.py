"""Tests of `group_images`: every way in which a CSV file, a COCO file, a folder or a file name names a group."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retinanet import data
from retinanet.data.grouping import group_images
from retinanet.data.split import divide
from retinanet.errors import ConfigError
from tests.formats import samples

Write = Callable[..., Path]


@pytest.fixture
def four(tmp_path: Path, write_image: Write) -> Path:
    """Return a folder with 0.jpg to 3.jpg."""
    for i in range(4):
        write_image(tmp_path / f"{i}.jpg", seed=i)
    return tmp_path


def write_coco(folder: Path, images: list[dict[str, Any]], annotations: dict[str, list[Any]] | None = None) -> Path:
    box = {"category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": 0}
    fields = {key: iter(values) for key, values in (annotations or {}).items()}
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48, **e} for i, e in enumerate(images)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": i, **box, **{key: next(values) for key, values in fields.items()}}
            for i in range(len(images))
        ],
    }
    path = folder / "x.json"
    path.write_text(json.dumps(content))
    return path


def names(path: Path, group_by: str, **options: Any) -> list[tuple[str, ...]]:
    return list(group_images(data.load(path, **options), group_by).names)


def test_a_csv_column_of_any_order_and_case(four: Path) -> None:
    """The group stands before the file name, as in patient,class,filename: the file name is no key of the group."""
    rows = "".join(f"P{i % 2}, cat ,{i}.jpg,1,1,9,9\n" for i in range(4))
    (four / "x.csv").write_text(f" Patient ,class,filename,xmin,ymin,xmax,ymax\n{rows}")
    assert names(four / "x.csv", "Patient") == [("P0",), ("P1",), ("P0",), ("P1",)]
    assert names(four / "x.csv", "patient") == names(four / "x.csv", "Patient")
    rows = "".join(f"{i}.jpg,1,1,9,9,cat,film{i % 2}\n" for i in range(4))
    (four / "x.csv").write_text(rows)
    assert names(four / "x.csv", "column 7") == [("film0",), ("film1",), ("film0",), ("film1",)], "without a header"
    (four / "x.csv").write_bytes(
        b"\xef\xbb\xbf" + f"path,x1,y1,x2,y2,class,film\n{rows}".replace("\n", "\r\n").encode()
    )
    assert names(four / "x.csv", "film") == [("film0",), ("film1",), ("film0",), ("film1",)]


def test_equal_file_names_in_two_folders_keep_their_own_groups(tmp_path: Path, write_image: Write) -> None:
    rows = []
    for number, camera in enumerate(("a", "b")):
        (tmp_path / camera).mkdir()
        write_image(tmp_path / camera / "0.jpg", seed=number)
        rows.append(f"{camera}/0.jpg,1,1,9,9,cat,P{number}\n")
    (tmp_path / "x.csv").write_text("path,x1,y1,x2,y2,class,patient\n" + "".join(rows))
    assert names(tmp_path / "x.csv", "patient") == [("P0",), ("P1",)]


def test_rows_of_an_image_may_name_several_groups_or_none(four: Path) -> None:
    """Image 0 has rows of P0 and P1, so that P0 and P1 belong together; image 2 has its group in one of two rows."""
    rows = ["0,P0", "0,P1", "1,P1", "2,", "2,P2", "3,"]
    text = "".join("{}.jpg,1,1,9,9,cat,{}\n".format(*row.split(",")) for row in rows)
    (four / "x.csv").write_text(f"path,x1,y1,x2,y2,class,patient\n{text}")
    assert names(four / "x.csv", "patient") == [("P0", "P1"), ("P1",), ("P2",), ()]
    division = divide(data.load(four / "x.csv"), {"train": 0.5, "val": 0.5}, group_by="patient", near_duplicates=False)
    parts = [{record.path.stem for record in part.records} for part in division.parts.values()]
    assert {"0", "1"} in parts
    assert division.groups == 1
    assert "grouped by column patient: 3 groups (P0, P1, P2)" in division.sentences()
    assert "1 of 4 images have no column patient and are groups of their own" in division.sentences()


@pytest.mark.parametrize(
    ("values", "group_by"),
    [
        ([{"film": i % 2} for i in range(4)], "film"),
        ([{"film": str(i % 2)} for i in range(4)], "film"),
        ([{"film": [0, 1.0, "0", " 1 "][i]} for i in range(4)], "film"),
        ([{"extra": {"film": i % 2}} for i in range(4)], "extra.film"),
        ([{"extra": {"film": i % 2}} for i in range(4)], "film"),
        ([{"film": [i % 2]} for i in range(4)], "film"),
    ],
)
def test_a_field_of_coco_images(four: Path, values: list[dict[str, Any]], group_by: str) -> None:
    assert names(write_coco(four, values), group_by) == [("0",), ("1",), ("0",), ("1",)]


def test_a_field_of_coco_annotations_and_an_export_folder(four: Path) -> None:
    path = write_coco(four, [{}] * 4, {"attributes": [{"animal": f"A{i % 2}"} for i in range(4)]})
    expected = [("A0",), ("A1",), ("A0",), ("A1",)]
    assert names(path, "animal") == expected
    (four / "annotations").mkdir()
    path.rename(four / "annotations" / "instances.json")
    assert names(four, "animal", images=four) == expected, "the source is a folder"


def test_a_field_that_two_columns_may_be_is_refused(four: Path) -> None:
    path = write_coco(four, [{"a": {"film": 1}, "b": {"film": 2}}] * 4)
    with pytest.raises(ConfigError, match=r"'film', which may be a\.film, b\.film of x\.json: give the full name"):
        names(path, "film")


CVAT, VOC, LABELME, TASKS = "annotations.xml", "Annotations/a.xml", "a.json", "project-1.json"


@pytest.mark.parametrize(
    ("write", "file", "old", "new", "group_by", "expected"),
    [
        (samples.cvat_xml, CVAT, 'name="a.jpg"', 'name="a.jpg" subset="Train"', "subset", "Train"),
        (samples.cvat_xml, CVAT, 'name="a.jpg"', 'name="a.jpg" task_id="7"', "task_id", "7"),
        (samples.cvat_xml, CVAT, "</box>", '<attribute name="film">7</attribute></box>', "film", "7"),
        (samples.cvat_xml, CVAT, "</image>", '<tag label="night"></tag></image>', "tag", "night"),
        (samples.cvat_xml, CVAT, "</image>", '<tag><attribute name="film">7</attribute></tag></image>', "film", "7"),
        (samples.cvat_voc, VOC, "</annotation>", "<film>7</film></annotation>", "film", "7"),
        (samples.cvat_voc, VOC, "</annotation>", "<source><film>7</film></source></annotation>", "source.film", "7"),
        (
            *(samples.cvat_voc, VOC, "</object>"),
            "<attributes><attribute><name>film</name><value>7</value></attribute></attributes></object>",
            *("film", "7"),
        ),
        (samples.labelme, LABELME, '"flags": {}, "shapes"', '"flags": {"night": true}, "shapes"', "night", "True"),
        (samples.labelme, LABELME, '"flags": {}, "shapes"', '"film": 7, "shapes"', "film", "7"),
        (samples.labelme, LABELME, '"flags": {}}', '"description": "left"}', "description", "left"),
        (samples.label_studio, TASKS, '"data": {', '"meta": {"film": 7}, "data": {', "film", "7"),
        (samples.label_studio, TASKS, '"data": {', '"data": {"film": 7, ', "film", "7"),
        (samples.label_studio, TASKS, '"type": "choices"', '"type": "choices", "from_name": "f"', "f", "sharp"),
        (samples.label_studio_min, TASKS, '"id": 1', '"id": 1, "film": 7', "film", "7"),
    ],
)
def test_fields_of_the_other_formats(
    write: Write, file: str, old: str, new: str, group_by: str, expected: str, tmp_path: Path, write_image: Write
) -> None:
    """Only the image a has the field."""
    path = write(tmp_path / "x", write_image)
    annotations = tmp_path / "x" / file
    text = annotations.read_text()
    assert old in text
    annotations.write_text(text.replace(old, new, 1))
    assert names(path, group_by) == [(expected,), ()]


def test_a_field_in_yolo_is_refused_with_what_is_possible(tmp_path: Path, write_image: Write) -> None:
    path = samples.cvat_yolo(tmp_path / "x", write_image)
    with pytest.raises(ConfigError, match=r"images have no columns or fields.*Give folder, .*folder:1, .*expression"):
        names(path, "patient")


@pytest.fixture
def nested(tmp_path: Path, write_image: Write) -> Path:
    """Return a COCO file with the images P0/left/0.jpg, P0/right/1.jpg, P1/left/2.jpg, P1/right/3.jpg."""
    images = []
    for i in range(4):
        name = f"P{i // 2}/{('left', 'right')[i % 2]}/{i}.jpg"
        (tmp_path / "images" / name).parent.mkdir(parents=True)
        write_image(tmp_path / "images" / name, seed=i)
        images.append({"file_name": name})
    return write_coco(tmp_path, images)


def test_folders(nested: Path) -> None:
    grouping = group_images(data.load(nested), "folder")
    assert grouping.names == [("P0/left",), ("P0/right",), ("P1/left",), ("P1/right",)]
    assert "the folders are nested: images of P0, P1 lie in several folders" in grouping.notes[0]
    patients = [("P0",), ("P0",), ("P1",), ("P1",)]
    assert names(nested, "folder:1") == patients
    assert names(nested, "folder:2") == list(grouping.names)
    assert names(nested, r"^([^/]+)/") == patients, "an expression with a slash is matched with the path"
    assert names(nested, r"P\d/(left|right)") == [("left",), ("right",)] * 2
    with pytest.raises(ConfigError, match=r"group_by folder:3 needs images at least 3 folders below"):
        names(nested, "folder:3")


def test_links_to_one_folder_are_one_group(tmp_path: Path, write_image: Write) -> None:
    (tmp_path / "P0").mkdir()
    (tmp_path / "P1").mkdir()
    for i in range(4):
        write_image(tmp_path / f"P{i // 3}" / f"{i}.jpg", seed=i)
    (tmp_path / "again").symlink_to("P0", target_is_directory=True)
    files = [{"file_name": name} for name in ("P0/0.jpg", "again/1.jpg", "P0/../P0/2.jpg", "P1/3.jpg")]
    assert names(write_coco(tmp_path, files), "folder") == [("P0",), ("P0",), ("P0",), ("P1",)]


def test_a_property_that_no_image_has_is_refused_with_the_columns(four: Path) -> None:
    (four / "x.csv").write_text("path,x1,y1,x2,y2,class,patient\n" + "".join(f"{i}.jpg,,,,,,P\n" for i in range(3)))
    loaded = data.read(four / "x.csv")
    with pytest.raises(ConfigError, match=r"'patiant' is not a column of x\.csv .*patient.*Did you mean"):
        group_images(loaded, "patiant")
    with pytest.raises(ConfigError, match=r"matches no file name \(the first is 0\.jpg\)"):
        group_images(loaded, "film")
    with pytest.raises(ConfigError, match="not a regular expression"):
        group_images(loaded, "(")
