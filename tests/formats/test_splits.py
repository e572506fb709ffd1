"""Tests of dataset splits in one file or in folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from retinanet import data
from retinanet.data import DataError
from retinanet.formats import splits_of
from tests.formats.samples import DOG, H, W, Write, boxes, roboflow_coco, shares, write_yolo


def test_splits_of_a_data_yaml(tmp_path: Path, write_image: Write) -> None:
    root = write_yolo(tmp_path, write_image)
    write_image(root / "images" / "val" / "c.jpg", W, H)
    (root / "labels" / "val").mkdir()
    (root / "labels" / "val" / "c.txt").write_text(f"1 {shares(DOG)}\n")
    file = root / "data.yaml"
    file.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": ["cat", "x", "dog"]}))
    assert list(boxes(data.read(file))) == ["a.jpg", "b.jpg"]
    assert "the split train was read (there is also val" in " ".join(data.read(file).notes)
    assert list(boxes(data.read(file, split="val"))) == ["c.jpg"]
    assert list(boxes(data.read(f"{file}#val"))) == ["c.jpg"]
    assert list(splits_of(file)) == ["train", "val"]
    with pytest.raises(DataError, match="expected the split 'test', found train, val"):
        data.read(f"{file}#test")
    with pytest.raises(DataError, match="Did you mean 'train'"):
        data.read(f"{file}#trian")


def test_a_folder_of_splits_gives_the_requested_split(tmp_path: Path, write_image: Write) -> None:
    root = roboflow_coco(tmp_path / "set", write_image)
    assert list(splits_of(root)) == ["train", "val"]
    assert data.read(root, split="val").records[0].path.parent.name == "valid"
    assert "category 0, 'animals', was left out" in " ".join(data.read(root).notes)
