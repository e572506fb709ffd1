"""Tests of the VisDrone reader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retinanet import data
from retinanet.data import DataError
from retinanet.formats import recognise, splits_of
from retinanet.formats.visdrone import CLASSES
from tests.formats.samples import Write, boxes

CAR = (10.0, 12.0, 30.0, 20.0)
LINES = {
    # bbox_left, bbox_top, bbox_width, bbox_height, score, object_category, truncation, occlusion
    "a": "10,12,20,8,1,4,0,1\n40,4,10,10,0,0,0,0\n1,30,6,6,0,11,0,0\n30,30,8,10,0,1,0,2\n",
    "b": "5,5,10,20,1,1,1,0,\n",  # some lines end with a comma
}


def write_visdrone(root: Path, write_image: Write, name: str = "VisDrone2019-DET-train") -> Path:
    folder = root / name
    (folder / "annotations").mkdir(parents=True)
    for stem, lines in LINES.items():
        write_image(folder / "images" / f"{stem}.jpg", 64, 48, seed=ord(stem))
        (folder / "annotations" / f"{stem}.txt").write_text(lines)
    return folder


def test_objects_and_ignore_regions(tmp_path: Path, write_image: Write) -> None:
    """Categories 0 and 11 are regions of every class. An object with a score of 0 is a region of its class."""
    found = data.load(write_visdrone(tmp_path, write_image))
    assert found.classes == CLASSES
    assert found.category_ids == tuple(range(1, 11))
    first, second = boxes(found).values()
    assert first[:2] == [("car", CAR), ("pedestrian", (30, 30, 38, 40))]
    assert first[2:] == [
        *((name, (40, 4, 50, 14)) for name in CLASSES),
        *((name, (1, 30, 7, 36)) for name in CLASSES),
    ]
    assert second == [("pedestrian", (5, 5, 15, 25))]
    assert found.records[0].crowd_G.tolist() == [False] + [True] * 21
    assert (found.num_objects, found.num_crowd) == (5, 3)
    assert "2 ignore regions apply to every class" in found.notes
    assert found.records[0].properties == {"truncation": ("0",), "occlusion": ("1", "2")}


def test_classes_can_be_selected_and_renamed(tmp_path: Path, write_image: Write) -> None:
    folder = write_visdrone(tmp_path, write_image)
    found = data.load(folder, keep=["person", "car"], rename={"pedestrian": "person", "people": "person"})
    assert (found.classes, found.category_ids) == (("person", "car"), (1, 4))


def test_every_split_of_the_download(tmp_path: Path, write_image: Write) -> None:
    for split in ("train", "val", "test-dev"):
        write_visdrone(tmp_path / "set", write_image, f"VisDrone2019-DET-{split}")
    write_image(tmp_path / "set" / "VisDrone2019-DET-test-challenge" / "images" / "c.jpg", 64, 48)
    (tmp_path / "set" / "VisDrone2019-DET-val" / "annotations" / "a.txt").write_text("")
    assert recognise(tmp_path / "set").format.name == "visdrone"
    assert list(splits_of(tmp_path / "set")) == ["train", "val", "test"]
    assert data.load(tmp_path / "set", split="val").num_objects == 1
    assert data.load(tmp_path / "set", split="train").num_objects == 5
    assert data.load(f"{tmp_path / 'set'}#test").num_objects == 5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("10,12,20,8,1,4,0", "expected 8 columns of VisDrone, found 7: '10,12,20,8,1,4,0'"),
        ("1,1,10,12,20,8,1,4,0,0", "expected 8 columns of VisDrone, found 10"),
        ("10,x,20,8,1,4,0,0", "expected finite numbers bbox_left, bbox_top, bbox_width, bbox_height, found"),
        ("10,12,20,8,0.71,4,-1,-1", r"expected a score of 0 \(ignored\) or 1, found '0.71'. Other scores are those of"),
        ("10,12,20,8,1,12,0,0", "expected an object category from 0 to 11, found '12'"),
        ("10,12,0,8,1,4,0,0", "expected a box with an area above 0, found"),
    ],
)
def test_faults_name_file_and_line(line: str, message: str, tmp_path: Path, write_image: Write) -> None:
    folder = write_visdrone(tmp_path, write_image)
    (folder / "annotations" / "b.txt").write_text(f"{LINES['b']}{line}\n")
    with pytest.raises(DataError, match=rf"annotations/b\.txt, line 2: {message}"):
        data.load(folder)
    assert data.load(folder, skip_invalid=True).num_objects == 5


def test_a_coco_folder_is_not_visdrone(tmp_path: Path, write_image: Write) -> None:
    (tmp_path / "annotations").mkdir()
    write_image(tmp_path / "images" / "a.jpg", 64, 48)
    content = {"images": [], "categories": [], "annotations": []}
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(content))
    (tmp_path / "annotations" / "readme.txt").write_text("1,2,3\n")
    assert recognise(tmp_path).format.name == "coco"
