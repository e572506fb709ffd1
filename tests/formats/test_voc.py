"""Tests of the Pascal VOC reader: folders, splits, faults, and errors for unrecognised paths."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retinanet import data
from retinanet.data import DataError

Write = Callable[..., Path]
CAT = ("cat", (1, 2, 30, 40))


def test_boxes_are_unchanged_and_classes_sorted(write_voc: Write) -> None:
    root = write_voc({"b": [("dog", (1, 1, 64, 48)), ("cat", ("10.5", 2, "20.25", 40))], "a": []})
    found = data.load(root)
    assert found.classes == ("cat", "dog")
    assert found.category_ids == (1, 2)
    assert [r.path.name for r in found.records] == ["a.jpg", "b.jpg"]
    assert [r.image_id for r in found.records] == [1, 2]
    empty, record = found.records
    assert empty.boxes_G4.shape == (0, 4)
    np.testing.assert_array_equal(record.boxes_G4, [[1, 1, 64, 48], [10.5, 2, 20.25, 40]])
    np.testing.assert_array_equal(record.areas_G, [63 * 47, 9.75 * 38])
    assert record.labels_G.tolist() == [1, 0]
    assert record.annotation_ids == (1, 2)


def test_difficult_objects_are_ignored(write_voc: Write) -> None:
    found = data.load(write_voc({"a": [CAT, ("cat", (5, 5, 9, 9), ), "<object><name>cat</name><difficult>1</difficult>"
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"]}))  # fmt: skip
    assert found.records[0].crowd_G.tolist() == [False, False, True]
    assert [a["iscrowd"] for a in found.to_coco()["annotations"]] == [0, 0, 1]


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        (("cat", (5, 5, 5, 9)), r"area above 0, found \(5, 5\) to \(5, 9\)"),
        (("cat", (9, 5, 5, 9)), "area above 0"),
        (("cat", (70, 5, 90, 9)), "within the 64x48 image"),
        (("cat", ("", 5, 7, 9)), "a number in <xmin>, found ''"),
        (("cat", (5, 5, "nan", 9)), "a number in <xmax>, found 'nan'"),
        (("cat", (5, 5, 9, "ten")), "a number in <ymax>, found 'ten'"),
        (("", (5, 5, 9, 9)), "a class in <name>"),
        ("<object><name>cat</name></object>", "<bndbox>"),
        ("<object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>", "<ymin>, found none"),
    ],
)
def test_an_invalid_object_is_reported(write_voc: Write, invalid: object, message: str) -> None:
    root = write_voc({"a": [CAT], "b": [CAT, invalid, CAT]})
    with pytest.raises(DataError, match=rf"1 fault\n.*b\.xml, object 2 of 3: .*{message}.*--skip-invalid"):
        data.load(root)
    left = data.load(root, skip_invalid=True)
    assert (left.num_objects, len(left.faults)) == (3, 1)
    assert left.records[1].annotation_ids == (1, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object></annotation>", "b.xml, line 1, column 23: not XML"),
        ("", "b.xml, line 1, column 1: not XML"),
        ("<html></html>", "found <html>"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>', "cannot be read"),
        ('<?xml version="1.0" encoding="martian"?><annotation/>', "cannot be read|not XML"),
    ],
)
def test_files_other_than_annotations_are_faults(write_voc: Write, text: str, message: str) -> None:
    root = write_voc({"a": [CAT], "b": [CAT]})
    (root / "Annotations" / "b.xml").write_text(text)
    with pytest.raises(DataError, match=message):
        data.load(root)
    assert len(data.load(root, skip_invalid=True).records) == 1


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>", "<size><width/></size>"])
def test_a_missing_size_comes_from_the_image(write_voc: Write, size: str) -> None:
    root = write_voc({"a": [CAT], "b": [CAT]})
    file = root / "Annotations" / "a.xml"
    file.write_text(file.read_text().replace("<size><width>64</width><height>48</height></size>", size))
    record = data.load(root).records[0]
    assert (record.width, record.height) == (64, 48)
    (root / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"a\.xml: .*neither in <size> nor in the image"):
        data.load(root)


def test_images_are_found_by_stem_then_by_written_name(write_voc: Write, write_image: Write) -> None:
    root = write_voc({"a": [CAT], "b": [CAT], "c": [CAT]})
    folder = root / "JPEGImages"
    (folder / "a.jpg").unlink()
    write_image(folder / "a.PNG", format="PNG")  # not the suffix written in the .xml
    for old, new in (("b", "a"), ("c", "renamed")):
        file = root / "Annotations" / f"{old}.xml"
        file.write_text(file.read_text().replace(f"{old}.jpg", f"{new}.jpg"))
    (folder / "c.jpg").rename(folder / "renamed.jpg")
    assert [r.path.name for r in data.load(root).records] == ["a.PNG", "b.jpg", "renamed.jpg"]


def test_a_missing_image_is_reported(write_voc: Write, tmp_path: Path) -> None:
    root = write_voc({"a": [CAT], "b": [CAT]})
    (tmp_path / "other").mkdir()
    shutil.move(root / "JPEGImages" / "b.jpg", tmp_path / "other")
    with pytest.raises(DataError, match=r"b\.jpg: image not found.*--images.*--skip-invalid"):
        data.load(root)
    assert [r.path.name for r in data.load(root, skip_invalid=True).records] == ["a.jpg"]
    searched = rf"a\.jpg: image not found. Put the image into {tmp_path / 'other'}, the folder of --images"
    with pytest.raises(DataError, match=searched):
        data.load(root, images=tmp_path / "other")


def test_a_flat_folder(write_voc: Write, tmp_path: Path) -> None:
    root = write_voc({"a": [CAT], "b": []})
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in [*root.glob("*/*.xml"), *root.glob("*/*.jpg")]:
        file.rename(flat / file.name)
    (flat / "some.txt").write_text("b\n")
    assert len(data.load(flat).records) == 2
    assert len(data.read(flat / "some.txt").records) == 1


@pytest.mark.parametrize("text", ["b\na\n", "b  1\na -1\n", "\ufeffb\r\n\r\na  \r\n", "b.jpg\na.jpg", "b 0\na"])
def test_splits_keep_the_order_of_their_lines(write_voc: Write, text: str) -> None:
    root = write_voc({"a": [CAT], "b": [], "c": [CAT]})
    split = root / "ImageSets" / "Main" / "x.txt"
    split.parent.mkdir(parents=True)
    split.write_bytes(text.encode())
    assert [r.path.stem for r in data.load(split).records] == ["b", "a"]


def test_faults_of_a_split(write_voc: Write, tmp_path: Path) -> None:
    root = write_voc({"a": [CAT], "with space 1": [CAT]})
    split = root / "train.txt"
    split.write_text("a\nzzz\n\na\nwith space 1 -1\n")
    with pytest.raises(DataError) as caught:
        data.load(split)
    assert [(f.where, f.file) for f in caught.value.faults] == [("line 2", split), ("line 4", split)]
    assert "no such file" in caught.value.faults[0].what
    assert "also in line 1" in caught.value.faults[1].what
    assert len(data.load(split, skip_invalid=True).records) == 2
    (tmp_path / "requirements.txt").write_text("torch\n")
    with pytest.raises(DataError, match="no Annotations/ in"):
        data.load(tmp_path / "requirements.txt")


def test_labels_follow_the_given_class_list(write_voc: Write) -> None:
    root = write_voc({"a": [CAT, ("dog", (1, 1, 5, 5))]})
    found = data.load(root, classes=("dog", "bird", "cat"))
    assert found.classes == ("dog", "bird", "cat")
    assert found.category_ids == (1, 2, 3)
    assert found.records[0].labels_G.tolist() == [2, 0]
    with pytest.raises(DataError, match=r"a\.xml, object 2 of 2: expected one of the classes cat; found 'dog'"):
        data.load(root, classes=["cat"])


def test_unrecognised_paths_are_explained(tmp_path: Path, write_voc: Write) -> None:
    root = write_voc({"a": [CAT]})
    with pytest.raises(DataError, match=r"no 'vocc' in .*Did you mean 'voc'"):
        data.read(tmp_path / "vocc")
    with pytest.raises(DataError, match=r"no 'trian' in"):
        data.read(tmp_path / "trian" / "deep" / "x.json")
    with pytest.raises(
        DataError, match=r"the file is no dataset of a known format.*Give its folder.*Pascal VOC folder"
    ):
        data.read(root / "Annotations" / "a.xml")
    (tmp_path / "roboflow").mkdir()
    with pytest.raises(DataError, match=r"the folder holds no dataset of a known format: .*roboflow"):
        data.read(tmp_path / "roboflow")
    (tmp_path / "roboflow" / "_annotations.coco.json").write_text("{}")
    with pytest.raises(DataError, match=r"_annotations\.coco\.json\. Expected a COCO ground truth"):
        data.read(tmp_path / "roboflow")
    (tmp_path / "data.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"is no dataset of a known format: .*data\.zip.*Expected a COCO \.json"):
        data.read(tmp_path / "data.zip")


@pytest.mark.slow
def test_bccd_has_exactly_two_faults(shared_data: Path) -> None:
    with pytest.raises(DataError, match="2 faults") as caught:
        data.load(shared_data / "bccd")
    assert [(f.file.name, f.where) for f in caught.value.faults] == [
        ("BloodImage_00338.xml", "object 13 of 14"),
        ("BloodImage_00343.xml", "object 4 of 12"),
    ]
    found = data.load(shared_data / "bccd", skip_invalid=True)
    assert (len(found.records), found.num_objects, found.classes) == (364, 4886, ("Platelets", "RBC", "WBC"))
    counts = np.bincount(np.concatenate([r.labels_G for r in found.records]))
    assert counts.sum() == 4886
    splits = [data.read(shared_data / "bccd/ImageSets/Main" / f"{name}.txt") for name in ("train", "val", "test")]
    assert [len(split.records) for split in splits] == [205, 87, 72]
    assert sum(split.num_objects for split in splits) == 4886


@pytest.mark.parametrize(
    "shape",
    [
        "<polygon><x1>5</x1><y1>6</y1><x2>15</x2><y2>6</y2><x3>10</x3><y3>26</y3></polygon>",
        "<polygon><pt><x>5</x><y>6</y></pt><pt><x>15</x><y>6</y></pt><pt><x>10</x><y>26</y></pt></polygon>",
        "<robndbox><cx>10</cx><cy>16</cy><w>20</w><h>10</h><angle>1.5707963</angle></robndbox>",
    ],
    ids=["Roboflow", "LabelMe", "roLabelImg"],
)
def test_other_shapes_become_boxes_with_a_note(write_voc: Write, shape: str) -> None:
    found = data.load(write_voc({"a": [f"<object><name>cat</name>{shape}</object>"]}))
    np.testing.assert_allclose(found.records[0].boxes_G4, [[5, 6, 15, 26]], atol=1e-5)
    assert any("1 polygons and other shapes" in note for note in found.notes)


@pytest.mark.parametrize(("flag", "is_difficult"), [("Unspecified", False), ("", False), ("0", False), ("1", True)])
def test_flags_of_labelling_tools(write_voc: Write, flag: str, is_difficult: bool) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    text = f"<object><name>cat</name><difficult>{flag}</difficult>{box}</object>"
    assert data.load(write_voc({"a": [CAT, text]})).records[0].crowd_G.tolist() == [False, is_difficult]


def test_a_box_of_cvat_before_its_rotation(write_voc: Write) -> None:
    """cvat#6785: 20 x 10 pixels about (20, 15), rotated by 90 degrees, are 10 x 20."""
    rotation = "<attributes><attribute><name>rotation</name><value>90.0</value></attribute></attributes>"
    box = "<bndbox><xmin>10</xmin><ymin>10</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
    found = data.load(write_voc({"a": [f"<object><name>cat</name>{box}{rotation}</object>"]}))
    np.testing.assert_allclose(found.records[0].boxes_G4, [[15, 5, 25, 25]], atol=1e-9)


def test_a_requested_split_of_a_folder(write_voc: Write) -> None:
    """`check` reads the whole folder. Training and validation read their lists, if the lists name all images."""
    root = write_voc({"a": [CAT], "b": [CAT]})
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    assert len(data.read(root, split="train").records) == 2  # b is in no list
    (lists / "val.txt").write_text("b\n")
    stems = {split: [r.path.stem for r in data.read(root, split=split).records] for split in (None, "train", "val")}
    assert stems == {None: ["a", "b"], "train": ["a"], "val": ["b"]}
    assert [r.path.stem for r in data.read(f"{root}#val").records] == ["b"]


def test_a_name_that_ends_with_a_number_in_a_list(write_voc: Write) -> None:
    """The column 1, 0 or -1 of a list is no part of the name, unless an image has this name."""
    root = write_voc({"img 1": [CAT], "img": [CAT]})
    (root / "list.txt").write_text("img 1\nimg  -1\n")
    assert [r.path.stem for r in data.load(root / "list.txt").records] == ["img 1", "img"]
