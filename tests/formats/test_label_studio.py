"""Tests of the Label Studio reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet import data
from retinanet.data import DataError
from tests.formats.samples import H, W, Write, boxes, label_studio


def test_a_rotated_box(tmp_path: Path, write_image: Write) -> None:
    """A box of 20 x 10 pixels, rotated by 90 degrees about its upper left corner, is 10 x 20."""
    source = label_studio(tmp_path / "ls", write_image)
    tasks = json.loads(source.read_text())
    value = {"x": 40 / W * 100, "y": 10 / H * 100, "width": 20 / W * 100, "height": 10 / H * 100, "rotation": 90}
    result = {"id": "t", "type": "rectanglelabels", "value": {**value, "rectanglelabels": ["cat"]}}
    tasks[1]["annotations"][0]["result"] = [{**result, "original_width": W, "original_height": H}]
    source.write_text(json.dumps(tasks))
    np.testing.assert_allclose(boxes(data.load(source))["0a1b2c3d-b.jpg"][0][1], (30, 10, 40, 30), atol=1e-5)


def with_result(source: Path, *results: dict[str, Any], image_rotation: int = 0) -> Path:
    tasks = json.loads(source.read_text())
    size = {"original_width": W, "original_height": H, "image_rotation": image_rotation}
    tasks[1]["annotations"][0]["result"] = [
        {"id": str(number), "type": "rectanglelabels", **size, "value": {**value, "rectanglelabels": ["cat"]}}
        for number, value in enumerate(results)
    ]
    source.write_text(json.dumps(tasks))
    return source


def test_a_box_drawn_to_the_upper_left(tmp_path: Path, write_image: Write) -> None:
    """label-studio#3140: a region with a negative height begins at its lower edge."""
    value = {"x": 25, "y": 75, "width": 50, "height": -50, "rotation": 0}
    source = with_result(label_studio(tmp_path / "ls", write_image), value)
    assert boxes(data.load(source))["0a1b2c3d-b.jpg"] == [("cat", (16, 12, 48, 36))]


def test_missing_numbers_and_rotated_images_are_faults(tmp_path: Path, write_image: Write) -> None:
    """label-studio#8717: null as width and height."""
    source = label_studio(tmp_path / "ls", write_image)
    with pytest.raises(DataError, match=r"region 1: expected finite numbers in x, y, width, height, found \[25, 25, N"):
        data.load(with_result(source, {"x": 25, "y": 25, "width": None, "height": None}))
    with pytest.raises(DataError, match="expected regions of the upright image, found image_rotation 90"):
        data.load(with_result(source, {"x": 25, "y": 25, "width": 5, "height": 5}, image_rotation=90))


def test_tasks_without_an_annotation_are_left_out(tmp_path: Path, write_image: Write) -> None:
    """A skipped task is no image without objects."""
    source = label_studio(tmp_path / "ls", write_image)
    tasks = json.loads(source.read_text())
    tasks[1]["annotations"][0]["was_cancelled"] = True
    source.write_text(json.dumps(tasks))
    found = data.load(source)
    assert list(boxes(found)) == ["a.jpg"]
    assert "1 tasks were left out: they have no annotation" in " ".join(found.notes)
    source.write_text(json.dumps([{"id": 1, "data": {"image": "a.jpg"}, "annotations": [], "predictions": [{}]}]))
    with pytest.raises(DataError, match=r"at least one image, found none\. 1 tasks were left out"):
        data.load(source)


def test_separate_tags_of_a_minimal_export(tmp_path: Path, write_image: Write) -> None:
    """label-studio#9547: the template OCR has a field for the shapes and one for the labels, and no field `image`."""
    write_image(tmp_path / "a.jpg", W, H)
    shape = {"x": 25, "y": 25, "width": 50, "height": 50, "rotation": 0, "original_width": W, "original_height": H}
    task = {
        **{"created_at": "2026-03-08T10:00:00.123Z", "ocr": "/data/upload/1/0a1b2c3d-a.jpg", "bbox": [shape, shape]},
        **{"label": [{**shape, "labels": ["Text"]}, {**shape, "labels": ["Stamp"]}], "transcription": ["a", "b"]},
        **{"id": 1, "annotator": 1, "annotation_id": 1},
    }
    (tmp_path / "project.json").write_text(json.dumps([task]))
    box = (16, 12, 48, 36)
    assert boxes(data.load(tmp_path / "project.json")) == {"a.jpg": [("Text", box), ("Stamp", box)]}
