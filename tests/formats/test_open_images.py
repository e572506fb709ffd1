"""Tests of the Open Images reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinanet import data
from retinanet.data import DataError
from retinanet.formats import recognise, splits_of
from tests.formats.samples import (
    CAT,
    DOG,
    EXPECTED,
    IDS,
    OPEN_IMAGES_HEADER,
    Write,
    boxes,
    open_images,
    open_images_row,
)

ROW = f"a,xclick,{IDS['cat']},1,0.1,0.5,0.2,0.6,0,0,0,0,0"


def test_classes_are_those_of_the_boxes_in_the_order_of_the_descriptions(tmp_path: Path, write_image: Write) -> None:
    root = open_images(tmp_path / "oi", write_image)
    found = data.load(root)
    assert (found.classes, found.category_ids) == (("dog", "cat"), (1, 2))
    assert found.records[0].properties == {
        "Source": ("xclick",),
        "IsOccluded": ("0",),
        "IsTruncated": ("1",),
        "IsDepiction": ("0",),
    }
    (root / "class-descriptions-boxable.csv").unlink()
    assert data.load(root).classes == (IDS["cat"], IDS["dog"])
    assert data.load(root, rename={IDS["cat"]: "cat"}, keep=["cat"]).classes == ("cat",)


def test_a_group_is_an_ignore_region_of_its_class(tmp_path: Path, write_image: Write) -> None:
    root = open_images(tmp_path / "oi", write_image)
    file = root / "oidv6-train-annotations-bbox.csv"
    rows = (open_images_row("b", "cat", CAT, group="1"), open_images_row("b", "dog", DOG, group="-1"))
    file.write_text(file.read_text() + "\n".join(rows))
    found = data.load(root)
    assert boxes(found) == {**EXPECTED, "b.jpg": EXPECTED["a.jpg"]}
    assert found.records[1].crowd_G.tolist() == [True, False]


def test_boxes_of_images_that_were_not_downloaded_are_counted(tmp_path: Path, write_image: Write) -> None:
    root = open_images(tmp_path / "oi", write_image)
    file = root / "oidv6-train-annotations-bbox.csv"
    elsewhere = [open_images_row(name, "cat", CAT) for name in ("0001eeaf4aed83f9", "0001eeaf4aed83f9", "000595fe")]
    file.write_text(file.read_text() + "\n".join(elsewhere))
    found = data.load(root)
    assert not found.faults
    note = "2 images with 3 boxes were left out, because no image file has their id, such as 0001eeaf4aed83f9"
    assert note in found.notes


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW.replace("0.1,", "x,"), "expected finite numbers XMin, XMax, YMin, YMax, found 'x, 0.5, 0.2, 0.6'"),
        (ROW.replace(",0.6,0,0,0,0,0", ""), "expected finite numbers XMin, XMax, YMin, YMax, found '0.1, 0.5, 0.2, '"),
        (ROW.replace("0.6,0,0,0", "0.6,0,0,2"), "expected 0, 1 or -1 as IsGroupOf, found '2'"),
        (ROW.replace("0.1,", "0.7,"), "expected a box with an area above 0, found"),
        (
            ROW.replace("0.1,0.5,0.2,0.6", "12,40,8,33"),
            "expected coordinates relative to the image size, 0 to 1, found",
        ),
        (ROW.replace("a,", ",", 1), "expected an ImageID and a LabelName, found"),
    ],
)
def test_faults_name_file_and_line(row: str, message: str, tmp_path: Path, write_image: Write) -> None:
    root = open_images(tmp_path / "oi", write_image)
    file = root / "oidv6-train-annotations-bbox.csv"
    file.write_text(file.read_text() + row + "\n")
    with pytest.raises(DataError, match=rf"train-annotations-bbox\.csv, line 4: {message}"):
        data.load(root)
    assert boxes(data.load(root, skip_invalid=True)) == {"a.jpg": EXPECTED["a.jpg"]}


def test_labels_of_whole_images_are_properties(tmp_path: Path, write_image: Write) -> None:
    """A class that a person saw has confidence 1, a class that a person did not see has confidence 0."""
    root = open_images(tmp_path / "oi", write_image)
    rows = ["ImageID,Source,LabelName,Confidence", f"a,verification,{IDS['cat']},1", f"a,verification,{IDS['dog']},0"]
    rows += ["a,verification,/m/011k07,1", f"zz,verification,{IDS['cat']},1"]
    (root / "oidv6-train-annotations-human-imagelabels.csv").write_text("\n".join(rows))
    machine = root / "oidv6-train-annotations-machine-imagelabels.csv"
    machine.write_text("\n".join([rows[0], f"a,machine,{IDS['dog']},1"]))
    (root / "validation-annotations-human-imagelabels.csv").write_text("\n".join([rows[0], f"a,x,{IDS['dog']},1"]))
    properties = data.load(root).records[0].properties
    assert (properties["verified_present"], properties["verified_absent"]) == (("cat",), ("dog",))


def test_every_split_of_the_download(tmp_path: Path, write_image: Write) -> None:
    root = open_images(tmp_path / "oi", write_image)
    write_image(root / "validation" / "v.jpg", 64, 48)
    (root / "validation-annotations-bbox.csv").write_text(f"{OPEN_IMAGES_HEADER}\n{open_images_row('v', 'dog', DOG)}\n")
    assert recognise(root).others == ()
    assert list(splits_of(root)) == ["train", "val"]
    assert boxes(data.load(root, split="train"))["a.jpg"] == EXPECTED["a.jpg"]
    assert boxes(data.load(root, split="val")) == {"v.jpg": [("dog", DOG)]}


def test_the_folders_of_fiftyone(tmp_path: Path, write_image: Write) -> None:
    root = open_images(tmp_path / "oi", write_image)
    for folder in ("labels", "metadata"):
        (root / folder).mkdir()
    (root / "train").rename(root / "data")
    (root / "oidv6-train-annotations-bbox.csv").rename(root / "labels" / "detections.csv")
    (root / "class-descriptions-boxable.csv").rename(root / "metadata" / "classes.csv")
    assert boxes(data.load(root)) == {"a.jpg": EXPECTED["a.jpg"]}
    assert data.load(root).classes == ("dog", "cat")


def test_a_class_list_of_another_kind_renames_nothing(tmp_path: Path, write_image: Write) -> None:
    root = open_images(tmp_path / "oi", write_image)
    (root / "class-descriptions-boxable.csv").unlink()
    (root / "classes.csv").write_text(f"{IDS['cat']},0\n{IDS['dog']},1\n")
    assert data.load(root).classes == (IDS["cat"], IDS["dog"])
    (root / "class-descriptions.csv").write_text("/m/1,cat,1\n")
    with pytest.raises(DataError, match=r"class-descriptions\.csv, line 1: expected a class id and a class name"):
        data.load(root)
