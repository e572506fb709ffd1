"""Classes that are kept, left out or renamed."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinanet import data
from retinanet.data import DataError
from tests.formats.samples import Write, labelme, roboflow_coco


@pytest.fixture
def source(tmp_path: Path, write_image: Write) -> Path:
    return labelme(tmp_path / "set", write_image)


def test_keep(source: Path) -> None:
    found = data.load(source, keep=["dog"])
    assert (found.classes, found.num_objects, len(found.records)) == (("dog",), 1, 2)
    assert any("1 objects of cat were left out" in note for note in found.notes)


def test_ignore(source: Path) -> None:
    assert data.load(source, ignore=["dog"]).classes == ("cat",)


def test_rename_and_merge(source: Path) -> None:
    assert data.load(source, rename={"cat": "lion"}).classes == ("dog", "lion")
    assert data.load(source, rename={"cat": "dog"}).classes == ("dog",)
    assert data.load(source, rename={"cat": "dog"}).num_objects == 2


def test_a_class_that_is_not_there(source: Path) -> None:
    with pytest.raises(DataError, match="ignore_classes names 'dgo', the classes are cat, dog. Did you mean 'dog'"):
        data.load(source, ignore=["dgo"])


def test_in_validation_data_a_class_may_be_absent(source: Path) -> None:
    found = data.load(source, classes=("dog", "emu"), keep=["dog", "emu"])
    assert (found.classes, found.num_objects) == (("dog", "emu"), 1)


def test_coco_keeps_its_ids(tmp_path: Path, write_image: Write) -> None:
    root = roboflow_coco(tmp_path / "coco", write_image)
    found = data.load(root, rename={"dog": "wolf"}, ignore=["cat"])
    assert (found.classes, found.category_ids) == (("wolf",), (2,))
