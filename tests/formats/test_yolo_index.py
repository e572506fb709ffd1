"""Tests of data.yaml: images, labels and class names."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from retinanet import data
from retinanet.data import DataError
from tests.formats.samples import EXPECTED, Write, boxes, write_yolo


def test_a_data_yaml_with_folders(tmp_path: Path, write_image: Write) -> None:
    root = write_yolo(tmp_path, write_image)
    file = root / "data.yaml"
    file.write_text(yaml.safe_dump({"path": ".", "train": "images/train", "names": ["cat", "bird", "dog"]}))
    found = data.load(file)
    assert boxes(found) == EXPECTED
    assert (found.classes, found.category_ids) == (("cat", "bird", "dog"), (1, 2, 3))
    assert any("1 of 2 images have no label file" in note for note in found.notes)


def test_names_as_a_map_and_a_list_of_images(tmp_path: Path, write_image: Write) -> None:
    root = write_yolo(tmp_path, write_image)
    (root / "train.txt").write_text("./images/train/a.jpg\n\nimages/train/b.jpg\n")
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "train.txt", "names": {0: "cat", 2: "dog"}, "nc": 2}))
    found = data.load(root)
    assert boxes(found) == EXPECTED
    assert (found.classes, found.category_ids) == (("cat", "dog"), (1, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("names: [a, a]\ntrain: images", "every class name once"),
        ("names: {x: a}\ntrain: images", "class ids from 0"),
        ("names: [a]\nnc: 2\ntrain: images", r"expected 2 names \(`nc`\)"),
        ("train: images", "`names`"),
        ("names: [a", "not YAML"),
        ("names: [a]\ntrain: imagse", "Did you mean 'images'"),
    ],
)
def test_an_invalid_data_yaml_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "data.yaml").write_text(content)
    with pytest.raises(DataError, match=message):
        data.read(tmp_path / "data.yaml")
