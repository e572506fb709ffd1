"""Tests of the search for duplicates and near-duplicates."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet import data
from retinanet.data import DetectionData
from retinanet.data.duplicates import (
    SIDE,
    Fingerprint,
    fingerprint,
    fingerprints,
    group_numbers,
    identical_images,
    near_duplicates,
)


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


def frames(count: int, *, seed: int = 0) -> list[Fingerprint]:
    """Return the fingerprints of nearly identical frames: every pair is one of near-duplicates."""
    rng = np.random.default_rng(seed)
    scene_F = rng.normal(size=SIDE * SIDE)
    prints = []
    for number in range(count):
        values_F = scene_F + 0.05 * rng.normal(size=SIDE * SIDE)
        values_F -= values_F.mean()
        prints.append(Fingerprint(bytes([seed, *divmod(number, 256)]), np.float32(values_F / np.linalg.norm(values_F))))
    return prints


@pytest.mark.parametrize("exhaustive", [True, False])
def test_pairs_connect_each_group_of_near_duplicates(exhaustive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 frames of a fixed camera would give 200 million pairs."""
    monkeypatch.setattr("retinanet.data.duplicates._EXHAUSTIVE", 10_000 if exhaustive else 10)
    monkeypatch.setattr("retinanet.data.duplicates._EDGES_AT_ONCE", 100_000)
    first, second = frames(300, seed=1), frames(40, seed=2)
    prints = [*first, None, *second, first[0]]  # the last one has identical pixels
    pairs = near_duplicates(prints)
    assert len(pairs) == 300 + 39
    assert all(i < j and correlation > 0.95 for i, j, correlation in pairs)
    groups = group_numbers(len(prints), [pair[:2] for pair in pairs])
    assert [len(set(groups[:300])), groups[300], len(set(groups[301:341])), groups[341]] == [1, 1, 1, groups[0]]
    assert near_duplicates([]) == near_duplicates([None, first[0], first[0]]) == []
