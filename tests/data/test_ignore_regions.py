"""Ignore regions: from every format that has them, through training samples, to COCO and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retinanet import data
from retinanet.analysis.statistics import statistics
from retinanet.cli import main
from retinanet.config import AugmentConfig, ClassesConfig, ImageConfig
from retinanet.data import DataError, DetectionData, DetectionDataset
from retinanet.data.copy_paste import PasteSources
from retinanet.errors import ConfigError
from tests.formats.samples import (
    CAT,
    DOG,
    Write,
    boxes,
    cvat_xml,
    kitti,
    label_studio,
    label_studio_coco,
    labelme,
    open_images,
    roboflow_csv,
    roboflow_voc,
    roboflow_yolo,
)

SOURCES = (kitti, cvat_xml, label_studio, labelme, label_studio_coco, roboflow_csv, roboflow_voc, roboflow_yolo)


def rows(found: DetectionData) -> list[tuple[str, tuple[float, ...], bool]]:
    record = found.records[0]
    return [(*entry, bool(c)) for entry, c in zip(boxes(found)[record.path.name], record.crowd_G, strict=True)]


@pytest.mark.parametrize("export", SOURCES, ids=lambda f: f.__name__)
def test_a_class_becomes_a_region_of_every_other_class(
    export: Callable[..., Path], tmp_path: Path, write_image: Write
) -> None:
    """--ignore-regions dog in every format: the dog is no class, and its box is ignored for all classes."""
    found = data.load(export(tmp_path / "set", write_image), regions=["dog"])
    others = [name for name in found.classes if name != "cat"]  # a class list of the file may have further classes
    assert "dog" not in found.classes
    assert rows(found) == [("cat", CAT, False), ("cat", DOG, True), *((name, DOG, True) for name in others)]
    assert (found.num_objects, found.num_crowd) == (2, 1)
    assert "1 objects of class dog were read as ignore regions (--ignore-regions)" in found.notes
    assert "1 ignore region applies to every class" in found.notes


def test_a_region_covers_the_classes_of_the_training_data(tmp_path: Path, write_image: Write) -> None:
    """Validation data gets the class list of the training data, and may lack the regions."""
    root = labelme(tmp_path / "set", write_image)
    found = data.load(root, classes=("cat", "emu", "owl"), regions=["dog", "ignore"])
    assert found.classes == ("cat", "emu", "owl")
    assert found.records[0].crowd_G.tolist() == [False, True, True, True]


def test_names_are_those_after_renaming_and_may_contain_commas(tmp_path: Path, write_image: Write) -> None:
    root = labelme(tmp_path / "set", write_image)
    found = data.load(root, rename={"dog": "ignore, please"}, regions=["ignore, please"])
    assert (found.classes, found.num_crowd) == (("cat",), 1)
    assert data.load(root, rename={"dog": "ignore"}, regions=["ignore"], keep=["cat"]).num_crowd == 1
    with pytest.raises(
        DataError, match="ignore_regions names 'dgo', but the classes of .* are cat, dog. Did you mean 'dog'"
    ):
        data.load(root, regions=["dgo"])
    for option in ("keep", "ignore"):
        with pytest.raises(
            ConfigError, match="ignore_regions and .* both name 'dog'. Name the class in one of the two"
        ):
            data.load(root, regions=["dog"], **{option: ["cat", "dog"]})
    assert ClassesConfig(ignore_regions=("dog",)).reading["regions"] == ("dog",)


def test_a_training_sample_has_one_row_for_a_region(tmp_path: Path, write_image: Write) -> None:
    """The loss ignores the anchors of a region for every class. The index of each object stays that of the record."""
    root = open_images(tmp_path / "set", write_image)
    file = root / "oidv6-train-annotations-bbox.csv"
    head, *lines = file.read_text().splitlines()
    region = lines[1].replace("/m/0bt9lr", "ignore")  # between the cat and the dog
    file.write_text("\n".join([head, lines[0], region, lines[1]]))
    found = data.load(root, regions=["ignore"])
    assert found.records[0].crowd_G.tolist() == [False, False, True, True]
    target = DetectionDataset(data=found, image_config=ImageConfig(image_size=48, max_size=64))[0].target
    assert target.crowd_G.tolist() == [False, False, True]
    np.testing.assert_allclose(target.boxes_G4[1:], [DOG, DOG])
    assert set(PasteSources.of(found).objects_S.tolist()) == {0, 1}


def test_rows_before_an_object_are_kept(tmp_path: Path, write_image: Write) -> None:
    """Two crowd regions with one box before an object: leaving one out would change the index of the object."""
    file = label_studio_coco(tmp_path / "set", write_image) / "result.json"
    content = json.loads(file.read_text())
    first, second = content["annotations"]
    crowd = {**first, "iscrowd": 1}
    content["annotations"] = [crowd, {**crowd, "category_id": 2, "id": 5}, {**second, "id": 6}]
    file.write_text(json.dumps(content))
    found = data.load(file)
    assert found.num_crowd == 1
    target = DetectionDataset(data=found, image_config=ImageConfig(image_size=48, max_size=64))[0].target
    assert target.crowd_G.tolist() == [True, True, False]


def test_annotation_ids_of_coco_are_kept_beside_the_copies_of_a_region(tmp_path: Path, write_image: Write) -> None:
    file = label_studio_coco(tmp_path / "set", write_image) / "result.json"
    content = json.loads(file.read_text())
    content["categories"].append({"id": 5, "name": "ignore"})
    for row, (number, category) in zip(content["annotations"], ((40, 1), (30, 5)), strict=True):
        row |= {"id": number, "category_id": category}
    file.write_text(json.dumps(content))
    annotations = data.load(file, regions=["ignore"]).to_coco()["annotations"]
    assert [(row["id"], row["category_id"], row["iscrowd"]) for row in annotations] == [
        (40, 1, 0),
        (30, 1, 1),
        (41, 2, 1),
    ]


def test_every_augmentation_takes_regions(tmp_path: Path, write_image: Write) -> None:
    from retinanet.data.dataset import SampleKey

    found = data.load(labelme(tmp_path / "set", write_image), regions=["dog"])
    augment = AugmentConfig(augment=True, mosaic=1.0, mixup=1.0, copy_paste=1.0, crop=1.0)
    dataset = DetectionDataset(data=found, image_config=ImageConfig(image_size=48, max_size=64), augment=augment)
    targets = [dataset[SampleKey(index=0, seed=seed, image_size=48)].target for seed in range(8)]
    assert any(target.crowd_G.any() for target in targets)


def test_regions_survive_a_conversion_to_coco(tmp_path: Path, write_image: Write) -> None:
    """A region that applies to every class becomes one crowd annotation for each class."""
    source = kitti(tmp_path / "kitti", write_image)
    file = source / "training" / "label_2" / "a.txt"
    file.write_text(file.read_text() + "DontCare -1 -1 -10 40.5 4 60 24 -1 -1 -1 -1000 -1000 -1000 -10\n")
    with pytest.raises(SystemExit) as end:
        main(["convert", str(source), str(tmp_path / "coco"), "--format", "coco"])
    assert not end.value.code
    before, after = data.load(source), data.load(tmp_path / "coco" / "annotations.json")
    assert rows(after) == rows(before)
    assert (after.classes, after.num_objects, after.num_crowd) == (("cat", "dog"), 3, 1)
    annotations = json.loads((tmp_path / "coco" / "annotations.json").read_text())["annotations"]
    assert [row["iscrowd"] for row in annotations] == [0, 0, 1, 1]


def test_check_counts_regions(tmp_path: Path, write_image: Write) -> None:
    found = statistics(data.load(labelme(tmp_path / "set", write_image), regions=["dog"]))
    assert "1 images without objects, 1 ignore regions (crowd, difficult)" in found.sentences()[0]
    assert (found.to_json()["crowd"], found.objects) == (1, 1)
