"""The demo's scenes: real digits on real photographs, the same bytes for a seed, boxes that are exact."""

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


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    material = load_material()["train"]
    return [make_scene(material, np.random.default_rng(i), size=(320, 256)) for i in range(40)]


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    first, again, other = (make_scenes(tmp_path / n, **SMALL, seed=s).folder for n, s in (("a", 7), ("b", 7), ("c", 8)))
    assert contents(first) == contents(again)
    assert len(contents(first)) == 10 + 3 + 1
    images = [name for name in contents(first) if name.endswith(".jpg")]
    assert all(contents(first)[name] != contents(other)[name] for name in images)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_scene_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
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
            alone = all(
                (other == box).all() or other[0] >= x2 or other[2] <= x1 or other[1] >= y2 or other[3] <= y1
                for other in scene.boxes.astype(int)
            )
            if alone:  # each side of the box touches ink
                inside = changed[y1:y2, x1:x2]
                assert inside[0].any()
                assert inside[-1].any()
                assert inside[:, 0].any()
                assert inside[:, -1].any()
                checked += 1
        assert not outside.any()
    assert checked > 60


def test_no_box_leaves_the_image_and_none_hides_another(scenes: list[Scene]) -> None:
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


def test_scenes_hold_all_classes_many_sizes_and_sometimes_nothing(scenes: list[Scene]) -> None:
    assert {int(label) for scene in scenes for label in scene.labels} == set(range(10))
    empty = [scene for scene in scenes if not len(scene.boxes)]
    assert 1 <= len(empty) <= 8
    assert all((scene.image == scene.background).all() for scene in empty)
    heights = np.concatenate([scene.boxes[:, 3] - scene.boxes[:, 1] for scene in scenes])
    assert heights.min() < 45
    assert heights.max() > 110


def test_no_digit_and_no_background_is_in_both_train_and_a_held_out_set() -> None:
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


def test_our_coco_reader_reads_them(tmp_path: Path) -> None:
    data_module = pytest.importorskip("retinanet.data")
    made = make_scenes(tmp_path / "scenes", **SMALL)
    data = data_module.load(made.train_json)
    assert data.classes == CLASSES
    assert not data.faults
    content = json.loads(made.train_json.read_text())
    assert data.num_objects == len(content["annotations"]) > 0
    for record in data.records:
        with Image.open(record.path) as image:
            assert image.size == (record.width, record.height) == (320, 256)


@pytest.mark.slow
def test_complete_scenes_are_used_again_and_broken_or_other_ones_built_anew(tmp_path: Path) -> None:
    folder = make_scenes(tmp_path / "scenes", **SMALL).folder
    whole = contents(folder)
    image = folder / "train/00000.jpg"
    before = image.stat().st_ino
    make_scenes(folder, **SMALL)
    assert image.stat().st_ino == before
    for harm in (image.unlink, lambda: image.write_bytes(b"half"), (folder / MANIFEST).unlink):
        harm()
        make_scenes(folder, **SMALL)
        assert contents(folder) == whole
    make_scenes(folder, train=3, val=1, test=1)
    assert len(list((folder / "train").iterdir())) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["scenes"]


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DemoError, match=r"thesis\.txt"):
        make_scenes(tmp_path, **SMALL)
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}
    with pytest.raises(DemoError, match="is a file"):
        make_scenes(tmp_path / "thesis.txt", **SMALL)


@pytest.mark.slow
def test_two_at_once_end_with_whole_scenes(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: make_scenes(tmp_path / "scenes", **SMALL), range(3)))
    assert contents(made[0].folder) == contents(make_scenes(tmp_path / "alone", **SMALL).folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone", "scenes"]


def test_without_scikit_learn_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install 'retinanet\[demo\]'"):
        make_scenes(tmp_path / "scenes", **SMALL)
    assert not (tmp_path / "scenes").exists()


@pytest.mark.parametrize("wrong", [{"size": (90, 256)}, {"train": 0}])
def test_impossible_scenes_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least"):
        make_scenes(tmp_path / "scenes", **{**SMALL, **wrong})
