"""Tests of the LVIS reader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retinanet import data
from retinanet.data import DataError
from retinanet.formats import recognise, splits_of
from tests.formats.samples import EXPECTED, Write, boxes, coco, lvis


def test_the_classes_of_each_image_are_properties(tmp_path: Path, write_image: Write) -> None:
    found = data.load(lvis(tmp_path / "lvis", write_image))
    assert found.category_ids == (1, 2)
    assert [record.image_id for record in found.records] == [0, 1]
    first, second = (record.properties for record in found.records)
    assert first["not_exhaustive_category_ids"] == second["not_exhaustive_category_ids"] == ("1",)
    assert "neg_category_ids" not in first
    assert second["neg_category_ids"] == ("2",)
    assert any("2 images have classes of which some objects are not labelled" in note for note in found.notes)


def test_names_of_coco_2014_lead_to_the_images_of_coco_2017(tmp_path: Path, write_image: Write) -> None:
    """LVIS v0.5 writes COCO_train2014_000000000009.jpg for train2017/000000000009.jpg."""
    file = lvis(tmp_path / "lvis", write_image)
    for name in ("a", "b"):
        (tmp_path / "lvis" / "train2017" / f"{name}.jpg").rename(tmp_path / "lvis" / "train2017" / f"00{name}.jpg")
    content = json.loads(file.read_text())
    for image in content["images"]:
        stem = Path(image.pop("coco_url")).stem
        image["file_name"] = f"COCO_train2014_00{stem}.jpg"
    file.write_text(json.dumps(content))
    assert boxes(data.load(file)) == {f"00{name}": objects for name, objects in EXPECTED.items()}


@pytest.mark.parametrize("ids", [[1, 77], "1", [None]])
def test_a_list_with_unknown_categories_is_a_fault(ids: object, tmp_path: Path, write_image: Write) -> None:
    file = lvis(tmp_path / "lvis", write_image)
    content = json.loads(file.read_text())
    content["images"][1]["neg_category_ids"] = ids
    file.write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"lvis_v1_train\.json, image 1: expected ids of categories in neg_category_ids"
    ):
        data.load(file)


def test_lvis_and_coco_are_told_apart(tmp_path: Path, write_image: Write) -> None:
    file = lvis(tmp_path / "lvis", write_image)
    assert (recognise(file).format.name, recognise(file).others) == ("lvis", ())
    file.write_text(json.dumps(coco()))
    assert (recognise(file).format.name, recognise(file).others) == ("coco", ())
    file.write_text(json.dumps({**coco(), "images": [None]}))
    assert recognise(file).format.name == "coco"


def test_the_folder_of_the_download_and_its_splits(tmp_path: Path, write_image: Write) -> None:
    file = lvis(tmp_path / "lvis", write_image)
    assert boxes(data.load(tmp_path / "lvis")) == EXPECTED
    content = json.loads(file.read_text())
    content["annotations"].pop()
    file.with_name("lvis_v1_val.json").write_text(json.dumps(content))
    assert recognise(tmp_path / "lvis").format.name == "lvis"
    assert list(splits_of(tmp_path / "lvis")) == ["train", "val"]
    assert [data.load(tmp_path / "lvis", split=split).num_objects for split in ("train", "val")] == [2, 1]
