"""Tests of the Label Studio reader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from retinanet import data
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
