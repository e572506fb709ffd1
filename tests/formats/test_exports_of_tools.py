"""Data sets as labelling tools export them, read back box for box."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retinanet import data
from retinanet.formats import splits_of
from tests.formats.samples import (
    EXPECTED,
    EXPORTS,
    Write,
    boxes,
    label_studio,
    label_studio_min,
    labelme,
    roboflow_coco,
    roboflow_csv,
)


@pytest.mark.parametrize("export", EXPORTS, ids=lambda f: f.__name__)
def test_every_export_is_read_box_for_box(export: Callable[..., Path], tmp_path: Path, write_picture: Write) -> None:
    source = export(tmp_path / "set", write_picture)
    found = data.load(source)
    expected: dict[str, Any] = dict(EXPECTED)
    if export is roboflow_csv:  # Roboflow's CSV has no line for a picture without objects
        del expected["b.jpg"]
    if export in {label_studio, label_studio_min}:
        expected = {"a.jpg": EXPECTED["a.jpg"], "0a1b2c3d-b.jpg": []}
    assert boxes(found) == expected
    assert set(found.classes) >= {"cat", "dog"}


def test_a_folder_of_splits_gives_the_one_that_is_asked_for(tmp_path: Path, write_picture: Write) -> None:
    root = roboflow_coco(tmp_path / "set", write_picture)
    assert list(splits_of(root)) == ["train", "val"]
    assert data.read(root, split="val").records[0].path.parent.name == "valid"
    assert "category 0, 'animals', is Roboflow's name for all" in " ".join(data.read(root).notes)


def test_a_guess_is_stated_and_can_be_overridden(tmp_path: Path, write_picture: Write) -> None:
    root = labelme(tmp_path / "set", write_picture)
    (root / "boxes.csv").write_text("a.jpg,5,5,9,9,cow\n")
    guessed = data.read(root)
    assert guessed.classes == ("cow",)
    assert "was read as CSV by its boxes.csv; it could also be labelme (--format overrides)" in " ".join(guessed.notes)
    assert boxes(data.read(root, format="labelme")) == EXPECTED
