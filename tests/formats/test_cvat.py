"""Tests of the CVAT reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retinanet import data
from retinanet.data import DataError
from tests.formats.samples import Write, boxes, cvat_xml


def test_a_rotated_box(tmp_path: Path, write_image: Write) -> None:
    """A box of 20 x 10 pixels, rotated by 90 degrees about its centre, is 10 x 20."""
    root = cvat_xml(tmp_path / "cvat", write_image)
    file = root / "annotations.xml"
    rotated = '<box label="cat" xtl="20" ytl="20" xbr="40" ybr="30" rotation="90"></box></image></annotations>'
    file.write_text(file.read_text().replace("</image></annotations>", rotated))
    np.testing.assert_allclose(boxes(data.load(root))["b.jpg"][0][1], (25, 15, 35, 35), atol=1e-5)


def test_cuboids_tags_and_skeletons(tmp_path: Path, write_image: Write) -> None:
    """A cuboid becomes the box around its corners. Tags are counted, and parts of a skeleton are no classes."""
    root = cvat_xml(tmp_path / "cvat", write_image)
    file = root / "annotations.xml"
    corners = {"tl1": (10, 10), "bl1": (10, 30), "tr1": (30, 10), "br1": (30, 30)}
    corners |= {"tl2": (15, 5), "bl2": (15, 25), "tr2": (35, 5), "br2": (35, 25)}
    numbers = " ".join(f'x{name}="{x}" y{name}="{y}"' for name, (x, y) in corners.items())
    shapes = f'<cuboid label="cat" {numbers}/><tag label="cat"/></image></annotations>'
    part = "<label><name>1</name><type>points</type><parent>cat</parent></label></labels>"
    file.write_text(file.read_text().replace("</image></annotations>", shapes).replace("</labels>", part))
    found = data.load(root)
    assert found.classes == ("cat", "dog")
    assert boxes(found)["b.jpg"] == [("cat", (10, 5, 35, 30))]
    assert "1 tags of whole images were left out" in found.notes
    file.write_text(file.read_text().replace('xtl1="10"', ""))
    with pytest.raises(DataError, match="cuboid 1: expected 8 corners, found"):
        data.load(root)
