"""Division by picture: shares, classes, groups, near-duplicates; and what counts as one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from retinanet import data
from retinanet.cli import main
from retinanet.data import DetectionData
from retinanet.data.duplicates import ALIKE, fingerprint, fingerprints, joined, nearly_same, same
from retinanet.data.split import assign, divide, group_keys
from retinanet.errors import ConfigError

Write = Callable[..., Path]
SHARES = {"train": 0.8, "val": 0.2}


@pytest.fixture
def many(write_voc: Write) -> DetectionData:
    """40 pictures of 8 patients, 5 each; one in four shows a rare dog."""
    cat, dog = ("cat", (1, 2, 30, 40)), ("dog", (5, 5, 20, 20))
    content = {f"p{i // 5}_{i % 5}": [cat, dog] if i % 4 == 0 else [cat] for i in range(40)}
    root = write_voc(content, folder="many")
    rng = np.random.default_rng(0)  # pictures that do not look alike
    for path in (root / "JPEGImages").iterdir():
        noise = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((64, 48), Image.Resampling.NEAREST).save(path)
    return data.load(root)


def names(found: DetectionData) -> set[str]:
    return {record.path.stem for record in found.records}


def dogs(found: DetectionData) -> int:
    return sum(int((r.labels_G == found.classes.index("dog")).any()) for r in found.records)


def test_shares_and_classes(many: DetectionData) -> None:
    division = divide(many, SHARES)
    train, val = division.parts["train"], division.parts["val"]
    assert names(train) | names(val) == names(many)
    assert not names(train) & names(val)
    assert len(val.records) == 8
    assert dogs(val) == 2
    assert names(divide(many, SHARES).parts["val"]) == names(val), "the same seed divides alike"
    assert names(divide(many, SHARES, seed=1).parts["val"]) != names(val)


def test_three_parts(many: DetectionData) -> None:
    parts = divide(many, {"train": 0.6, "val": 0.2, "test": 0.2}).parts
    assert [len(parts[name].records) for name in ("train", "val", "test")] == [24, 8, 8]
    assert [dogs(parts[name]) for name in ("train", "val", "test")] == [6, 2, 2]


def test_groups_stay_together(many: DetectionData) -> None:
    division = divide(many, {"train": 0.75, "val": 0.25}, group_by="^[^_]+")
    patients = {name: {stem.split("_")[0] for stem in names(part)} for name, part in division.parts.items()}
    assert not patients["train"] & patients["val"]
    assert (len(patients["train"]), len(patients["val"]), division.groups) == (6, 2, 8)


def test_groups_by_a_column(tmp_path: Path, write_picture: Write) -> None:
    images = []
    for i in range(4):
        write_picture(tmp_path / f"{i}.jpg", seed=i)
        images.append({"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48, "film": i % 2})
    box = {"category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": 0}
    content = {
        "images": images,
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": i, "image_id": i, **box} for i in range(4)],
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert group_keys(data.load(tmp_path / "x.json"), "film") == [0, 1, 0, 1]
    rows = "".join(f"{i}.jpg,1,1,9,9,cat,film{i % 2}\n" for i in range(4))
    (tmp_path / "x.csv").write_text(f"path,x1,y1,x2,y2,class,film\n{rows}")
    assert group_keys(data.load(tmp_path / "x.csv"), "film") == ["film0", "film1", "film0", "film1"]
    with pytest.raises(ConfigError, match=r"'patient' is no column and is found in no file name such as 0\.jpg"):
        group_keys(data.load(tmp_path / "x.csv"), "patient")
    with pytest.raises(ConfigError, match="no regular expression"):
        group_keys(data.load(tmp_path / "x.csv"), "(")


def test_near_duplicates_are_never_on_both_sides(many: DetectionData, tmp_path: Path) -> None:
    """Ten pictures get a smaller, brighter copy: whatever the seed, both go the same way."""
    copies = []
    for record in many.records[:10]:
        path = tmp_path / f"copy-{record.path.stem}.jpg"
        image = ImageEnhance.Brightness(Image.open(record.path)).enhance(1.15)
        image.resize((48, 36)).save(path, quality=60)
        copies.append(dataclasses.replace(record, path=path))
    both = dataclasses.replace(many, records=(*many.records, *copies))
    for seed in range(3):
        division = divide(both, {"train": 0.5, "val": 0.5}, seed=seed)
        assert division.alike == 20
        for part in division.parts.values():
            stems = names(part)
            for record in many.records[:10]:
                assert (record.path.stem in stems) == (f"copy-{record.path.stem}" in stems)
    apart = divide(both, {"train": 0.5, "val": 0.5}, near_duplicates=False)
    assert apart.alike == 0


def test_a_part_without_a_picture_is_an_error(many: DetectionData) -> None:
    few = dataclasses.replace(many, records=many.records[:1])
    with pytest.raises(ConfigError, match="val would get no picture: 1 groups of pictures are too few"):
        divide(few, SHARES)


def test_assign_by_hand() -> None:
    """Two pictures of the rare class and four of the common, in halves: one and two on each side."""
    contents = np.array([[1, 0, 1], [1, 0, 1], [0, 1, 1], [0, 1, 1], [0, 1, 1], [0, 1, 1]])
    part = assign(contents, np.arange(6), [0.5, 0.5])
    assert contents[part == 0].sum(axis=0).tolist() == [1, 2, 3]


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


def test_many_pictures_are_compared_by_a_part_of_a_hash(monkeypatch: pytest.MonkeyPatch, shared_data: Path) -> None:
    """Beyond 20,000 pictures not all pairs are looked at; what is found here is the same."""
    found = data.read(shared_data / "bccd")
    prints = fingerprints(found.records[:80])
    exhaustive = nearly_same(prints)
    monkeypatch.setattr("retinanet.data.duplicates._EXHAUSTIVE", 10)
    assert nearly_same(prints) == exhaustive
    assert len(exhaustive) == 1


def test_plain_pictures_are_not_all_alike(tmp_path: Path, many: DetectionData) -> None:
    paths = [tmp_path / f"{value}.png" for value in (10, 200)]
    for path, value in zip(paths, (10, 200), strict=True):
        Image.new("L", (64, 48), value).save(path)
    prints = [fingerprint(dataclasses.replace(many.records[0], path=path)) for path in paths]
    assert nearly_same(prints) == []
    assert ALIKE < 1


def test_joined() -> None:
    assert joined(5, [(0, 3), (3, 4)]) == [0, 1, 2, 0, 0]
    assert joined(4, [(1, 2)], ["a", None, "a", None]) == [0, 0, 0, 1]


def test_the_command(many: DetectionData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["split", str(many.source), "--val", "0.25", "-o", str(tmp_path / "parts")])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "val: 10 pictures" in said
    train, val = (data.load(tmp_path / "parts" / f"{name}.json") for name in ("train", "val"))
    assert names(train) | names(val) == names(many)
    assert train.records[0].path.resolve().parent == (many.source / "JPEGImages").resolve()
