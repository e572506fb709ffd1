"""Tests of the labelme reader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retinanet import data
from retinanet.data import DataError
from tests.formats.samples import Write, boxes, labelme


def test_shapes_other_than_rectangles(tmp_path: Path, write_image: Write) -> None:
    """Polygons and circles are replaced by bounding boxes, with a note; a point is a fault."""
    root = labelme(tmp_path / "set", write_image)
    content = json.loads((root / "b.json").read_text())
    content["shapes"] = [
        {"label": "cat", "shape_type": "polygon", "points": [[5, 5], [20, 10], [10, 30]]},
        {"label": "cat", "shape_type": "circle", "points": [[30, 20], [30, 25]]},
        {"label": "cat", "shape_type": "point", "points": [[5, 5]]},
    ]
    (root / "b.json").write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"b\.json, shape 3 of 3: expected a rectangle, a polygon or a circle, found 'po"
    ):
        data.load(root)
    found = data.load(root, skip_invalid=True)
    assert boxes(found)["b.jpg"] == [("cat", (5, 5, 20, 30)), ("cat", (25, 15, 35, 25))]
    assert any("2 polygons and other shapes" in note for note in found.notes)


@pytest.mark.parametrize("kind", ["rotation", "quadrilateral", "oriented_rectangle"])
def test_shapes_of_x_anylabeling(kind: str, tmp_path: Path, write_image: Write) -> None:
    """X-AnyLabeling#397: rotated boxes. Objects marked as difficult are ignored, as in Pascal VOC."""
    root = labelme(tmp_path / "set", write_image)
    content = json.loads((root / "b.json").read_text())
    points = [[20, 10], [40, 20], [30, 40], [10, 30]]
    shape = {"label": "cat", "shape_type": kind, "points": points, "direction": 0.5}
    content["shapes"] = [shape, {**shape, "difficult": True}, {**shape, "difficult": "maybe"}]
    (root / "b.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"shape 3 of 3: expected true or false as `difficult`, found 'maybe'"):
        data.load(root)
    found = data.load(root, skip_invalid=True)
    assert boxes(found)["b.jpg"] == [("cat", (10, 10, 40, 40))] * 2
    assert found.records[1].crowd_G.tolist() == [False, True]
