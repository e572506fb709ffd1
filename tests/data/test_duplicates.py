"""Images that are the same, or nearly so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from retinanet import data
from retinanet.data import DetectionData
from retinanet.data.duplicates import ALIKE, fingerprint, fingerprints, joined, nearly_same, same


@pytest.mark.slow
def test_bccd_has_one_pair_and_it_is_on_both_sides(shared_data: Path) -> None:
    """BloodImage_00037 (val) and _00038 (train) show the same cells at another focus; no other pair comes near."""
    found = data.read(shared_data / "bccd")
    prints = fingerprints(found.records)
    assert same(prints) == []
    pairs = [(found.records[i].path.stem, found.records[j].path.stem) for i, j, _ in nearly_same(prints)]
    assert pairs == [("BloodImage_00037", "BloodImage_00038")]
    assert (
        nearly_same(fingerprints(data.read(shared_data / "coco128/annotations/instances_train2017.json").records)) == []
    )


@pytest.mark.slow
def test_many_images_are_compared_by_a_part_of_a_hash(monkeypatch: pytest.MonkeyPatch, shared_data: Path) -> None:
    """Beyond 20,000 images not all pairs are looked at; what is found here is the same."""
    found = data.read(shared_data / "bccd")
    prints = fingerprints(found.records[:80])
    exhaustive = nearly_same(prints)
    monkeypatch.setattr("retinanet.data.duplicates._EXHAUSTIVE", 10)
    assert nearly_same(prints) == exhaustive
    assert len(exhaustive) == 1


def test_plain_images_are_not_all_alike(tmp_path: Path, many: DetectionData) -> None:
    paths = [tmp_path / f"{value}.png" for value in (10, 200)]
    for path, value in zip(paths, (10, 200), strict=True):
        Image.new("L", (64, 48), value).save(path)
    prints = [fingerprint(dataclasses.replace(many.records[0], path=path)) for path in paths]
    assert nearly_same(prints) == []
    assert ALIKE < 1


def test_joined() -> None:
    assert joined(5, [(0, 3), (3, 4)]) == [0, 1, 2, 0, 0]
    assert joined(4, [(1, 2)], ["a", None, "a", None]) == [0, 0, 0, 1]
