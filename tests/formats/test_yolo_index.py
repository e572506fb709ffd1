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


def label(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("0 .5 .5 .1 .1\n")


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("set/images/a.jpg", "set/images/a.txt"),
        ("images/set/a.jpg", "images/set/a.txt"),
        ("images/set/images/a.jpg", "images/set/labels/a.txt"),
        ("images/set/images/a.jpg", "labels/set/images/a.txt"),
        ("Images/a.jpg", "Labels/a.TXT"),
        ("images/e\u0301.jpg", "labels/\u00e9.txt"),
    ],
)
def test_the_label_file_of_an_image(tmp_path: Path, write_image: Write, image: str, labels: str) -> None:
    write_image(tmp_path / image)
    label(tmp_path / labels)
    (tmp_path / "data.yaml").write_text(f"train: {image.rpartition('/')[0]}\nnames: [cat]\n")
    found = data.read(tmp_path / "data.yaml")
    assert (found.num_objects, found.faults) == (1, ())


def test_labels_of_a_folder_without_images_are_faults_and_those_of_another_list_are_not(
    tmp_path: Path, write_image: Write
) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / f"images/{name}.jpg", seed=ord(name))
        label(tmp_path / f"labels/{name}.txt")
    (tmp_path / "train.txt").write_text("images\\a.jpg\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [cat]\n")
    found = data.read(tmp_path / "data.yaml")
    assert (found.num_objects, found.faults) == (1, ())
    assert any("label files of images that are not part of the split: 1 label file" in note for note in found.notes)
    label(tmp_path / "labels/night/c.txt")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\n")
    (fault,) = data.read(tmp_path / "data.yaml").faults
    assert fault.file == tmp_path / "labels/night/c.txt"


@pytest.mark.parametrize(
    "content",
    [
        "path: /content/x\ntrain: /content/drive/x/train/images",
        "path: C:\\data\\x\ntrain: train\\images",
        "train: file:///home/ann/x/train/images",
        "path: ../datasets/x\ntrain: ../train/images",
    ],
)
def test_folders_of_another_machine_are_found_by_their_end(tmp_path: Path, write_image: Write, content: str) -> None:
    write_image(tmp_path / "train/images/a.jpg")
    label(tmp_path / "train/labels/a.txt")
    (tmp_path / "data.yaml").write_text(f"{content}\nnames: [cat]\n")
    assert data.read(tmp_path / "data.yaml").num_objects == 1


def test_two_splits_of_another_machine_may_not_be_one_folder(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "images/a.jpg")
    label(tmp_path / "labels/a.txt")
    (tmp_path / "data.yaml").write_text("train: /x/train/images\nval: /x/val/images\nnames: [cat]\n")
    with pytest.raises(DataError, match=r"expected one folder for `train: .*found only .*images"):
        data.read(tmp_path / "data.yaml")
