"""Tests of the CVAT reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retinanet import data
from tests.formats.samples import Write, boxes, cvat_xml


def test_a_rotated_box(tmp_path: Path, write_image: Write) -> None:
    """A box of 20 x 10 pixels, rotated by 90 degrees about its centre, is 10 x 20."""
    root = cvat_xml(tmp_path / "cvat", write_image)
    file = root / "annotations.xml"
    rotated = '<box label="cat" xtl="20" ytl="20" xbr="40" ybr="30" rotation="90"></box></image></annotations>'
    file.write_text(file.read_text().replace("</image></annotations>", rotated))
    np.testing.assert_allclose(boxes(data.load(root))["b.jpg"][0][1], (25, 15, 35, 35), atol=1e-5)
