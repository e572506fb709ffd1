"""Tests of the search for duplicates and near-duplicates."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from retinanet import data
from retinanet.data import DetectionData
from retinanet.data.duplicates import fingerprint, fingerprints, group_numbers, identical_images, near_duplicates


@pytest.mark.slow
def test_bccd_has_one_pair_of_near_duplicates(shared_data: Path) -> None:
    """BloodImage_00037 (val) and BloodImage_00038 (train) show the same cells in another focus."""
    bccd = data.read(shared_data / "bccd")
    prints = fingerprints(bccd.records)
    assert identical_images(prints) == []
    pairs = [(bccd.records[i].path.stem, bccd.records[j].path.stem) for i, j, _ in near_duplicates(prints)]
    assert pairs == [("BloodImage_00037", "BloodImage_00038")]
    assert (
        near_duplicates(fingerprints(data.read(shared_data / "coco128/annotations/instances_train2017.json").records))
        == []
    )


@pytest.mark.slow
def test_hashing_finds_the_pairs_of_an_exhaustive_search(monkeypatch: pytest.MonkeyPatch, shared_data: Path) -> None:
    """Above 20,000 images, only pairs with a common hash part are compared. The limit is lowered to 10 here."""
    bccd = data.read(shared_data / "bccd")
    prints = fingerprints(bccd.records[:80])
    exhaustive = near_duplicates(prints)
    monkeypatch.setattr("retinanet.data.duplicates._EXHAUSTIVE", 10)
    assert near_duplicates(prints) == exhaustive
    assert len(exhaustive) == 1


def test_uniform_images_are_not_near_duplicates(tmp_path: Path, many: DetectionData) -> None:
    paths = [tmp_path / f"{value}.png" for value in (10, 200)]
    for path, value in zip(paths, (10, 200), strict=True):
        Image.new("L", (64, 48), value).save(path)
    prints = [fingerprint(dataclasses.replace(many.records[0], path=path)) for path in paths]
    assert near_duplicates(prints) == []


def test_linked_items_and_items_with_equal_keys_share_a_group() -> None:
    assert group_numbers(5, [(0, 3), (3, 4)]) == [0, 1, 2, 0, 0]
    assert group_numbers(4, [(1, 2), (0, 2), (3,)]) == [0, 0, 0, 1]
