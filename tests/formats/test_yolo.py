"""Tests of the YOLO reader: polygons, oriented boxes and faults."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from retinanet import data
from retinanet.data import DataError
from tests.formats.samples import CAT, Write, boxes, shares, write_yolo


def test_polygons_and_oriented_boxes_become_boxes_with_a_note(tmp_path: Path, write_image: Write) -> None:
    root = write_yolo(tmp_path, write_image)
    (root / "labels" / "train" / "b.txt").write_text(
        "0 0.25 0.25 0.75 0.25 0.5 0.75\n0 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5\n"
    )
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "names": ["cat", "x", "dog"]}))
    found = data.load(root)
    assert boxes(found)["b.jpg"] == [("cat", (16.0, 12.0, 48.0, 36.0))] * 2
    assert any("2 polygons or oriented boxes were replaced" in note for note in found.notes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", "found 4 columns"),
        ("0 0.5 0.5 0.2 x", "expected numbers"),
        ("7 0.5 0.5 0.2 0.2", r"class id of the class list \(0 to 2\), found '7'"),
        ("1.5 0.5 0.5 0.2 0.2", "found '1.5'"),
        ("0 0.5 0.5 0 0.2", "area above 0"),
        ("0 0.5 0.5 nan 0.2", "finite"),
        ("0 320 240 20 20", "maybe pixels"),
        ("0 1.5 0.5 0.2 0.2", "within the 64x48 image"),
    ],
)
def test_an_invalid_line_is_reported(tmp_path: Path, write_image: Write, line: str, message: str) -> None:
    root = write_yolo(tmp_path, write_image)
    (root / "labels" / "train" / "b.txt").write_text(f"0 {shares(CAT)}\n{line}\n")
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "names": ["cat", "x", "dog"]}))
    with pytest.raises(DataError, match=rf"1 fault\n.*b\.txt, line 2: .*{message}"):
        data.load(root)
    assert data.load(root, skip_invalid=True).num_objects == 3


def test_labels_without_an_image_are_reported(tmp_path: Path, write_image: Write) -> None:
    root = write_yolo(tmp_path, write_image)
    (root / "labels" / "train" / "gone.txt").write_text(f"0 {shares(CAT)}\n")
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "names": ["cat", "x", "dog"]}))
    with pytest.raises(DataError, match=r"gone\.txt: labels without an image"):
        data.load(root)


def test_a_dataset_without_label_files_is_refused(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"train": "images", "names": ["cat"]}))
    with pytest.raises(DataError, match=r"none of its 1 images has a label file; the first was expected at"):
        data.read(tmp_path / "data.yaml")
