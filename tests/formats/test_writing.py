"""Tests that written datasets are read back unchanged, and that lost details are listed."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet import data
from retinanet.data import DetectionData, Record
from retinanet.errors import UserError
from retinanet.formats.writing import lost, unique_names, write
from tests.shared import num_examples

Write = Callable[..., Path]
FORMATS = ("coco", "voc", "yolo", "csv")
CLASSES = ("cat", "big dog", 'Ääkkönen, <&> "x"')


def contents(found: DetectionData) -> list[tuple[str, list[tuple[str, bool]], Any]]:
    """Return the name, the objects and the boxes of each image, independent of image ids and class ids."""
    return [
        (r.path.name, [(found.classes[k], bool(c)) for k, c in zip(r.labels_G, r.crowd_G, strict=True)], r.boxes_G4)
        for r in sorted(found.records, key=lambda r: r.path.name)
    ]


def assert_same(first: DetectionData, second: DetectionData) -> None:
    assert first.classes == second.classes
    for (name, objects, boxes), (other_name, other_objects, other_boxes) in zip(
        contents(first), contents(second), strict=True
    ):
        assert (name, objects) == (other_name, other_objects)
        np.testing.assert_allclose(boxes, other_boxes, rtol=0, atol=1e-9)


def make_dataset(folder: Path, objects: list[list[tuple[int, tuple[float, float, float, float]]]]) -> DetectionData:
    """Return a dataset of 64 x 48 images with these objects. The last class has no objects."""
    records = []
    for number, found in enumerate(objects, 1):
        path = folder / f"p{number}.png"
        Image.new("RGB", (64, 48)).save(path)
        boxes = np.array([box for _, box in found], np.float64).reshape(-1, 4)
        records.append(
            Record(
                path=path,
                width=64,
                height=48,
                boxes_G4=boxes,
                labels_G=np.array([k for k, _ in found], np.int64),
                crowd_G=np.zeros(len(found), np.bool_),
                areas_G=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
                annotation_ids=tuple(range(1, len(found) + 1)),
                image_id=number,
            )
        )
    return DetectionData(records=tuple(records), classes=CLASSES, category_ids=(1, 2, 3), source=folder)


@st.composite
def random_box(draw: st.DrawFn) -> tuple[float, float, float, float]:
    x1, y1 = draw(st.floats(0, 62)), draw(st.floats(0, 46))
    x2, y2 = draw(st.floats(x1 + 1, 64)), draw(st.floats(y1 + 1, 48))
    return x1, y1, x2, y2


random_objects = st.lists(st.lists(st.tuples(st.integers(0, 1), random_box()), max_size=4), min_size=1, max_size=3)


@settings(max_examples=num_examples(25), deadline=None)
@given(objects=random_objects, first=st.sampled_from(FORMATS), second=st.sampled_from(FORMATS))
def test_random_boxes_are_equal_after_conversion_to_two_formats(objects: Any, first: Any, second: Any) -> None:
    if not any(objects):
        objects = [*objects, [(0, (1.0, 2.0, 3.0, 4.0))]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        original = make_dataset(folder, objects)
        there = data.load(write({"": original}, folder / "one", first).files[""])
        back = data.load(write({"": there}, folder / "two", second).files[""])
        assert_same(original, there)
        assert_same(original, back)
        assert_same(original, data.load(write({"": back}, folder / "three", first).files[""]))


def coco128_images(shared_data: Path) -> DetectionData:
    found = data.load(shared_data / "coco128" / "annotations" / "instances_train2017.json")
    return dataclasses.replace(found, records=found.records[:40])


@pytest.mark.parametrize("format", FORMATS)
def test_coco128_is_equal_after_writing_and_reading(format: Any, shared_data: Path, tmp_path: Path) -> None:
    original = coco128_images(shared_data)
    written = write({"": original}, tmp_path / "out", format, image_files="link")
    found = data.load(written.files[""])
    if format in {"yolo", "csv"}:
        assert any("crowd" in sentence for sentence in written.lost)
        kept = [
            dataclasses.replace(r, boxes_G4=r.boxes_G4[~r.crowd_G], labels_G=r.labels_G[~r.crowd_G],
                                crowd_G=r.crowd_G[~r.crowd_G])
            for r in original.records
        ]  # fmt: skip
        original = dataclasses.replace(original, records=tuple(kept))
    assert_same(original, found)
    assert bool(written.lost) == (format != "coco")
    if format == "coco":
        assert found.to_coco()["annotations"] == original.to_coco()["annotations"]


def test_lost_details_are_listed(tmp_path: Path) -> None:
    original = make_dataset(tmp_path, [[(0, (1, 2, 3, 4))], [(1, (5, 5, 9, 9))]])
    assert [sentence for f in FORMATS for sentence in lost(original, f)] == []
    record = dataclasses.replace(original.records[0], crowd_G=np.array([True]), areas_G=np.array([1.5]), image_id=7)
    rich = dataclasses.replace(original, records=(record, original.records[1]), category_ids=(1, 5, 9))
    assert list(lost(rich, "coco")) == []
    for format, missing in (("voc", 3), ("yolo", 4), ("csv", 4)):
        sentences = " ".join(lost(rich, format))
        assert ("ignore regions (crowd or difficult): 1 were" in sentences) == (format != "voc")
        for words in ("no category ids", "no image ids", "no areas of objects: 1 mask areas"):
            assert words in sentences
        assert len(list(lost(rich, format))) == missing


def test_existing_files_are_not_overwritten(write_voc: Write, tmp_path: Path) -> None:
    found = data.load(write_voc({"a": [("dog", (1, 2, 30, 40))]}))
    (tmp_path / "x.json").write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        write({"": found}, tmp_path / "x.json", "coco")
    assert (tmp_path / "x.json").read_text() == "mine"
    with pytest.raises(UserError, match="expected a folder"):
        write({"train": found, "val": found}, tmp_path / "y.json", "coco")


def test_images_with_equal_names_get_unique_names() -> None:
    paths = [Path("a/1.jpg"), Path("b/1.jpg"), Path("b/2.jpg"), Path("c/b/1.png")]
    assert unique_names(paths) == ["a_1.jpg", "b_1.jpg", "2.jpg", "b_1-2.png"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_written_dataset_is_read_by_a_path_with_dots(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The `..` of the user's own path are no paths of the annotations that lead outside. In Pascal VOC, the images lie
    two folders above the list."""
    original = make_dataset(tmp_path, [[(0, (1, 2, 11, 12))], [(1, (3, 4, 13, 14))]])
    written = write({"train": original}, tmp_path / "out", format, image_files="copy")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    source = Path(os.path.relpath(written.files["train"]))
    assert source.parts[0] == ".."
    found = data.read(source)
    assert found.faults == ()
    assert len(found.records) == 2
    assert_same(found, data.read(written.files["train"]))
