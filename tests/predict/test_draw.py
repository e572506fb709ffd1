"""Drawing detections on images."""

from __future__ import annotations

import numpy as np
import pytest
import supervision as sv
from PIL import Image

from retinanet.predict.draw import draw


def test_draw_marks_detections_above_the_threshold() -> None:
    image = Image.new("RGB", (400, 300), (128, 128, 128))
    detections = sv.Detections(
        xyxy=np.array([[50, 100, 150, 200], [250, 100, 350, 200]], np.float32),
        confidence=np.array([0.9, 0.3], np.float32),
        class_id=np.array([0, 1]),
        data={"class_name": np.array(["cell", "Zelle"])},
    )
    pixels = np.asarray(draw(image, detections, threshold=0.5))
    assert pixels.shape == (300, 400, 3)
    assert (np.asarray(image) == 128).all()  # the given image does not change
    changed = (pixels != 128).any(axis=2)
    assert changed[150, 50]
    assert not changed[150, 100]  # inside the box
    assert not changed[:, 200:].any()
    both = np.asarray(draw(image, detections))
    assert (both[150, 250] != 128).any()
    assert both[150, 50].tolist() != both[150, 250].tolist()  # each class has its own colour


@pytest.mark.parametrize("size", [(1, 1), (3000, 20), (2400, 1800)])
def test_draw_on_any_size(size: tuple[int, int]) -> None:
    whole = sv.Detections(
        xyxy=np.array([[0, 0, *size]], np.float32), confidence=np.array([0.9]), class_id=np.array([300])
    )
    assert draw(Image.new("RGB", size), whole).size == size
    assert draw(Image.new("RGB", size), whole[:0]).size == size  # type: ignore[arg-type]
