"""Tests of `convert` and `load_splits`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from retinanet import data
from retinanet.config import ConvertConfig, resolve
from retinanet.data.convert import convert, load_splits
from retinanet.errors import ConfigError
from retinanet.formats.writing import write

Write = Callable[..., Path]


def test_all_splits_are_converted_with_one_class_list(write_voc: Write, tmp_path: Path) -> None:
    """Train shows only dogs and val only cats, so class lists of their own would give equal ids to both classes."""
    root = write_voc({"a": [("dog", (1, 2, 30, 40))], "b": [("cat", (1, 2, 30, 40))], "c": []})
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True, exist_ok=True)
    for name, stems in (("train", "a\nc\n"), ("val", "b\n")):
        (lists / f"{name}.txt").write_text(stems)
    splits, written = convert(root, tmp_path / "coco", resolve(ConvertConfig, {"format": "coco"}))
    assert {name: len(split.records) for name, split in splits.items()} == {"train": 2, "val": 1}
    train, val = (json.loads(written.files[name].read_text()) for name in ("train", "val"))
    assert train["categories"] == val["categories"]
    splits, written = convert(
        tmp_path / "coco" / "train.json", tmp_path / "t", resolve(ConvertConfig, {"format": "yolo"})
    )
    assert splits[""].num_objects == 1
    (lists / "val.txt").write_text("")
    assert list(load_splits(root, reading={})) == [""], "lists that do not contain every image are not used"


def test_image_files_need_not_be_copied(write_voc: Write, tmp_path: Path) -> None:
    root = write_voc({"a": [("dog", (1, 2, 30, 40))]})
    for format, name in (("coco", "x.json"), ("csv", "y.csv")):
        written = write({"": data.load(root)}, tmp_path / "new" / name, format, image_files="none")  # type: ignore[arg-type]
        assert written.files[""] == tmp_path / "new" / name
        assert data.load(written.files[""]).records[0].path.resolve() == root / "JPEGImages" / "a.jpg"
    with pytest.raises(ConfigError, match="image_files must be copy or link, found none"):
        convert(root, tmp_path / "yolo", resolve(ConvertConfig, {"format": "yolo", "image_files": "none"}))
