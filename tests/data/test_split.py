"""Tests of splitting a dataset: shares, classes, groups, near-duplicates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from retinanet.data import DetectionData, Record
from retinanet.data.split import assign_parts, cross_validation_folds, divide
from retinanet.errors import ConfigError
from tests.data.helpers import names

Write = Callable[..., Path]
SHARES = {"train": 0.8, "val": 0.2}


def count_dog_images(data: DetectionData) -> int:
    return sum(int((r.labels_G == data.classes.index("dog")).any()) for r in data.records)


def test_two_parts_have_their_shares_of_images_and_classes(many: DetectionData) -> None:
    division = divide(many, SHARES)
    train, val = division.parts["train"], division.parts["val"]
    assert names(train) | names(val) == names(many)
    assert not names(train) & names(val)
    assert len(val.records) == 8
    assert count_dog_images(val) == 2
    assert names(divide(many, SHARES).parts["val"]) == names(val), "equal seeds give equal parts"
    assert names(divide(many, SHARES, seed=1).parts["val"]) != names(val)


def test_three_parts_have_their_shares_of_images_and_classes(many: DetectionData) -> None:
    parts = divide(many, {"train": 0.6, "val": 0.2, "test": 0.2}).parts
    assert [len(parts[name].records) for name in ("train", "val", "test")] == [24, 8, 8]
    assert [count_dog_images(parts[name]) for name in ("train", "val", "test")] == [6, 2, 2]


def test_groups_stay_together(many: DetectionData) -> None:
    division = divide(many, {"train": 0.75, "val": 0.25}, group_by="^[^_]+")
    patients = {name: {stem.split("_")[0] for stem in names(part)} for name, part in division.parts.items()}
    assert not patients["train"] & patients["val"]
    assert (len(patients["train"]), len(patients["val"]), division.groups) == (6, 2, 8)


def test_near_duplicates_are_in_one_part(many: DetectionData, tmp_path: Path) -> None:
    """Ten images have a smaller, brighter copy. Each copy is in the part of its original, for every seed."""
    copies = []
    for record in many.records[:10]:
        path = tmp_path / f"copy-{record.path.stem}.jpg"
        image = ImageEnhance.Brightness(Image.open(record.path)).enhance(1.15)
        image.resize((48, 36)).save(path, quality=60)
        copies.append(dataclasses.replace(record, path=path))
    originals_and_copies = dataclasses.replace(many, records=(*many.records, *copies))
    for seed in range(3):
        division = divide(originals_and_copies, {"train": 0.5, "val": 0.5}, seed=seed)
        assert division.duplicates == 20
        for part in division.parts.values():
            stems = names(part)
            for record in many.records[:10]:
                assert (record.path.stem in stems) == (f"copy-{record.path.stem}" in stems)
    division = divide(originals_and_copies, {"train": 0.5, "val": 0.5}, near_duplicates=False)
    assert division.duplicates == 0


def test_folds_validate_each_image_once(many: DetectionData) -> None:
    """40 images of 8 groups: the groups stay together, and each of the 10 images with a dog validates in one fold."""
    folds, division = cross_validation_folds(many, 4, group_by="^[^_]+")
    assert list(division.parts) == ["fold1", "fold2", "fold3", "fold4"]
    assert sorted(name for fold in folds for name in names(fold["val"])) == sorted(names(many))
    for fold in folds:
        train, val = names(fold["train"]), names(fold["val"])
        assert train | val == names(many)
        assert not train & val
        assert not {name.split("_")[0] for name in train} & {name.split("_")[0] for name in val}
        order = [record.image_id for record in fold["train"].records]
        assert order == [r.image_id for r in many.records if r.image_id in set(order)], "the order of the data"
    assert sum(count_dog_images(fold["val"]) for fold in folds) == count_dog_images(many) == 10
    assert [len(fold["val"].records) for fold in cross_validation_folds(many, 5)[0]] == [8] * 5


def test_a_part_without_images_is_an_error(many: DetectionData) -> None:
    single_image = dataclasses.replace(many, records=many.records[:1])
    with pytest.raises(ConfigError, match="one image in val, found none: 1 groups of images are too few for 2 parts"):
        divide(single_image, SHARES)


def test_assign_parts_divides_each_class_equally() -> None:
    """Two images of a rare class and four of a common class: each half gets one and two."""
    counts = np.array([[1, 0, 1], [1, 0, 1], [0, 1, 1], [0, 1, 1], [0, 1, 1], [0, 1, 1]])
    part = assign_parts(counts, np.arange(6), [0.5, 0.5])
    assert counts[part == 0].sum(axis=0).tolist() == [1, 2, 3]


def test_ignore_regions_are_no_objects_of_a_class(many: DetectionData) -> None:
    """With a region of every class in each image, the parts and the numbers of objects do not change."""
    K = len(many.classes)

    def with_region(record: Record) -> Record:
        rows = np.tile([40.0, 30.0, 60.0, 46.0], (K, 1))
        return dataclasses.replace(
            record,
            boxes_G4=np.concatenate([record.boxes_G4, rows]),
            labels_G=np.concatenate([record.labels_G, np.arange(K)]),
            crowd_G=np.concatenate([record.crowd_G, np.ones(K, np.bool_)]),
            areas_G=np.concatenate([record.areas_G, np.full(K, 320.0)]),
            annotation_ids=(*record.annotation_ids, *([9] * K)),
        )

    regions = dataclasses.replace(many, records=tuple(map(with_region, many.records)))
    plain, division = divide(many, SHARES, near_duplicates=False), divide(regions, SHARES, near_duplicates=False)
    assert names(division.parts["val"]) == names(plain.parts["val"])
    assert division.sentences() == plain.sentences()
