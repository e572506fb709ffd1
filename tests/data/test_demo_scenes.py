"""Tests of the demo's scenes: deterministic files, exact boxes, separate splits."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinanet.data.demo_scenes import (
    CLASSES,
    MANIFEST,
    SPLITS,
    DemoError,
    Scene,
    load_material,
    make_scene,
    make_scenes,
)
from retinanet.errors import UserError

pytest.importorskip("sklearn", reason="the demo needs scikit-learn: pip install 'retinanet[demo]'")
SMALL: dict[str, Any] = {"train": 6, "val": 2, "test": 2}


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder, by relative path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    material = load_material()["train"]
    return [make_scene(material, np.random.default_rng(i), size=(320, 256)) for i in range(40)]


def test_scenes_depend_only_on_the_seed(tmp_path: Path) -> None:
    first, again, other = (make_scenes(tmp_path / n, **SMALL, seed=s).folder for n, s in (("a", 7), ("b", 7), ("c", 8)))
    assert read_files(first) == read_files(again)
    assert len(read_files(first)) == 10 + 3 + 1
    images = [name for name in read_files(first) if name.endswith(".jpg")]
    assert all(read_files(first)[name] != read_files(other)[name] for name in images)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_scene_does_not_depend_on_the_number_of_scenes(tmp_path: Path) -> None:
    few, more = (
        make_scenes(tmp_path / "few", train=2, val=1, test=1),
        make_scenes(tmp_path / "more", train=4, val=1, test=1),
    )
    assert (few.folder / "train/00001.jpg").read_bytes() == (more.folder / "train/00001.jpg").read_bytes()


def test_boxes_are_tight_around_the_ink(scenes: list[Scene]) -> None:
    checked = 0
    for scene in scenes:
        changed = np.abs(scene.image.astype(int) - scene.background.astype(int)).max(axis=2) > 12
        outside = changed.copy()
        for box in scene.boxes.astype(int):
            x1, y1, x2, y2 = box
            outside[y1:y2, x1:x2] = False
            overlaps_no_other = all(
                (other == box).all() or other[0] >= x2 or other[2] <= x1 or other[1] >= y2 or other[3] <= y1
                for other in scene.boxes.astype(int)
            )
            if overlaps_no_other:  # each side of the box touches ink
                inside = changed[y1:y2, x1:x2]
                assert inside[0].any()
                assert inside[-1].any()
                assert inside[:, 0].any()
                assert inside[:, -1].any()
                checked += 1
        assert not outside.any()
    assert checked > 60


def test_boxes_lie_in_the_image_and_overlap_little(scenes: list[Scene]) -> None:
    for scene in scenes:
        height, width = scene.image.shape[:2]
        assert len(scene.boxes) == len(scene.labels)
        for i, (x1, y1, x2, y2) in enumerate(scene.boxes):
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
            assert y2 - y1 >= 24
            for a1, b1, a2, b2 in scene.boxes[:i]:
                inner = max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1))
                assert inner <= 0.15 * min((x2 - x1) * (y2 - y1), (a2 - a1) * (b2 - b1)) + 1e-6


def test_scenes_have_all_classes_and_many_sizes_and_some_have_no_objects(scenes: list[Scene]) -> None:
    assert {int(label) for scene in scenes for label in scene.labels} == set(range(10))
    empty = [scene for scene in scenes if not len(scene.boxes)]
    assert 1 <= len(empty) <= 8
    assert all((scene.image == scene.background).all() for scene in empty)
    heights = np.concatenate([scene.boxes[:, 3] - scene.boxes[:, 1] for scene in scenes])
    assert heights.min() < 45
    assert heights.max() > 110


def test_splits_share_no_digits_and_train_shares_no_background() -> None:
    material = load_material()
    digits = {split: {d.tobytes() for d in material[split].digits} for split in SPLITS}
    assert sum(len(material[split].digits) for split in SPLITS) == 1797
    assert not digits["train"] & digits["val"]
    assert not digits["train"] & digits["test"]
    assert not digits["val"] & digits["test"]
    columns = {
        s: {np.asarray(p)[:, c].tobytes() for p in material[s].photographs for c in range(p.width)} for s in SPLITS
    }
    assert not columns["train"] & columns["test"]


def test_scenes_load_as_a_coco_dataset(tmp_path: Path) -> None:
    data_module = pytest.importorskip("retinanet.data")
    scenes = make_scenes(tmp_path / "scenes", **SMALL)
    data = data_module.load(scenes.train_json)
    assert data.classes == CLASSES
    assert not data.faults
    content = json.loads(scenes.train_json.read_text())
    assert data.num_objects == len(content["annotations"]) > 0
    for record in data.records:
        with Image.open(record.path) as image:
            assert image.size == (record.width, record.height) == (320, 256)


@pytest.mark.slow
def test_complete_scenes_are_reused_and_damaged_or_different_scenes_are_replaced(tmp_path: Path) -> None:
    folder = make_scenes(tmp_path / "scenes", **SMALL).folder
    complete = read_files(folder)
    image = folder / "train/00000.jpg"
    before = image.stat().st_ino
    make_scenes(folder, **SMALL)
    assert image.stat().st_ino == before
    for damage in (image.unlink, lambda: image.write_bytes(b"half"), (folder / MANIFEST).unlink):
        damage()
        make_scenes(folder, **SMALL)
        assert read_files(folder) == complete
    make_scenes(folder, train=3, val=1, test=1)
    assert len(list((folder / "train").iterdir())) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["scenes"]


def test_a_folder_with_other_files_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DemoError, match=r"thesis\.txt"):
        make_scenes(tmp_path, **SMALL)
    assert read_files(tmp_path) == {"thesis.txt": b"years of work"}
    with pytest.raises(DemoError, match="is a file"):
        make_scenes(tmp_path / "thesis.txt", **SMALL)


@pytest.mark.slow
def test_concurrent_calls_end_with_complete_scenes(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        concurrent = list(pool.map(lambda _: make_scenes(tmp_path / "scenes", **SMALL), range(3)))
    assert read_files(concurrent[0].folder) == read_files(make_scenes(tmp_path / "alone", **SMALL).folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone", "scenes"]


def test_a_missing_scikit_learn_is_an_error_with_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install 'retinanet\[demo\]'"):
        make_scenes(tmp_path / "scenes", **SMALL)
    assert not (tmp_path / "scenes").exists()


@pytest.mark.parametrize("options", [{"size": (90, 256)}, {"train": 0}])
def test_invalid_options_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least"):
        make_scenes(tmp_path / "scenes", **{**SMALL, **options})


def test_a_scene_holds_the_digits_asked_for_in_their_order_and_sizes() -> None:
    """Digits 3, 1, 7, 7 of 10 x 30 pixels: these labels in this order, and boxes within the reach of the rotation."""
    material = load_material()["train"]
    scene = make_scene(
        material,
        np.random.default_rng(0),
        size=(224, 160),
        digits=[3, 1, 7, 7],
        digit_size=lambda _, height: (10.0, 30.0 * height / 160),
        min_side=4,
    )
    assert scene.labels.tolist() == [3, 1, 7, 7]
    widths, heights = (scene.boxes[:, 2:] - scene.boxes[:, :2]).T
    assert (widths >= 4).all()
    assert (widths <= 16).all()
    assert (heights >= 24).all()
    assert (heights <= 36).all()
    assert make_scene(material, np.random.default_rng(0), size=(224, 160), digits=[]).boxes.shape == (0, 4)
