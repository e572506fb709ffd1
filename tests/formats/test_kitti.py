"""Tests of the KITTI reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retinanet import data
from retinanet.data import DataError
from tests.formats.samples import CAT, DOG, EXPECTED, Write, boxes, kitti, kitti_line, tao

REGION = (40.0, 4.0, 60.0, 24.0)


def test_dont_care_is_an_ignore_region_of_every_class(tmp_path: Path, write_image: Write) -> None:
    """KITTI writes -1 for all columns of a DontCare region but its box. The region has a row for each class."""
    root = kitti(tmp_path / "kitti", write_image)
    file = root / "training" / "label_2" / "b.txt"
    region = " ".join(map(str, REGION))
    file.write_text(kitti_line("cat", CAT) + f"DontCare -1 -1 -10 {region} -1 -1 -1 -1000 -1000 -1000 -10\n")
    found = data.load(root)
    record = found.records[1]
    assert found.classes == ("cat", "dog")
    assert record.crowd_G.tolist() == [False, True, True]
    assert boxes(found)["b.jpg"] == [("cat", CAT), ("cat", REGION), ("dog", REGION)]
    assert (found.num_objects, found.num_crowd) == (4, 1)
    assert "1 ignore region applies to every class" in found.notes
    only_dogs = data.load(root, keep=["dog"])
    assert boxes(only_dogs)["b.jpg"] == [("dog", REGION)], "a selection of classes keeps the region"


def test_truncation_and_occlusion_are_properties(tmp_path: Path, write_image: Write) -> None:
    root = kitti(tmp_path / "kitti", write_image)
    lines = kitti_line("cat", CAT, truncated="0.31", occluded="2") + kitti_line("dog", DOG, occluded="0")
    (root / "training" / "label_2" / "a.txt").write_text(lines)
    assert data.read(root).records[0].properties == {"truncated": ("0.31", "0.00"), "occluded": ("2", "0")}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cat 0 0 -1 1 2 30 40", "expected 15 columns of KITTI, found 8: 'cat 0 0 -1 1 2 30 40'"),
        (
            kitti_line("cat", CAT).strip() + " 0.93",
            "expected 15 columns .*, found 16: .* The last column may be the score of a detection",
        ),
        (kitti_line("cat", CAT).replace("2.0", "x"), "expected a type and 14 finite numbers, found 'x'"),
        (kitti_line("cat", CAT).replace("2.0", "nan"), "expected a type and 14 finite numbers, found 'nan'"),
        (kitti_line("cat", (30, 2, 10, 40)), "expected a box with an area above 0, found"),
        (kitti_line("cat", (300, 2, 310, 40)), "expected a box within the 64x48 image, found"),
    ],
)
def test_faults_name_file_and_line(line: str, message: str, tmp_path: Path, write_image: Write) -> None:
    root = kitti(tmp_path / "kitti", write_image)
    (root / "training" / "label_2" / "b.txt").write_text(f"{kitti_line('dog', DOG)}\n{line}\n")
    with pytest.raises(DataError, match=rf"label_2/b\.txt, line 3: {message}"):
        data.load(root)
    assert boxes(data.load(root, skip_invalid=True)) == {**EXPECTED, "b.jpg": [("dog", DOG)]}


def test_an_image_without_labels_and_labels_without_an_image(tmp_path: Path, write_image: Write) -> None:
    root = kitti(tmp_path / "kitti", write_image)
    write_image(root / "training" / "image_2" / "c.jpg", 64, 48)
    (root / "training" / "label_2" / "d.txt").write_text(kitti_line("cat", CAT))
    faults = data.read(root).faults
    assert [fault.file.name for fault in faults] == ["d.png", "c.jpg"]
    assert "expected labels in" in faults[1].what
    assert "label_2/c.txt, found no such file" in faults[1].what


def test_the_places_that_users_give(tmp_path: Path, write_image: Write) -> None:
    """The download, its folder training, the folder of the labels, and images elsewhere."""
    root = kitti(tmp_path / "kitti", write_image)
    places = [root, root / "training", root / "training" / "label_2"]
    assert [boxes(data.load(place)) for place in places] == [EXPECTED] * 3
    (root / "training" / "image_2").rename(tmp_path / "pictures")
    assert boxes(data.load(root, images=tmp_path / "pictures")) == EXPECTED


def test_a_folder_with_a_subfolder_for_each_split(tmp_path: Path, write_image: Write) -> None:
    for split in ("train", "val"):
        tao(tmp_path / "set" / split, write_image)
    (tmp_path / "set" / "val" / "labels" / "a.txt").write_text(kitti_line("cat", CAT))
    assert data.load(tmp_path / "set", split="val").num_objects == 1
    assert data.load(tmp_path / "set").num_objects == 2


def test_yolo_labels_are_not_kitti(tmp_path: Path, write_image: Write) -> None:
    """A polygon of seven points after the name of a class has 15 columns, too."""
    write_image(tmp_path / "images" / "a.jpg", 64, 48)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("cat .1 .1 .2 .1 .3 .1 .3 .4 .3 .5 .2 .5 .1 .5\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    found = data.load(tmp_path)
    np.testing.assert_allclose(boxes(found)["a.jpg"][0][1], (6.4, 4.8, 19.2, 24))
