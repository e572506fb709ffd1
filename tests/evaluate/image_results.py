"""An image with objects and detections, as an argument of the gallery and of `evaluate.per_image`."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from retinanet.evaluate.per_image import ImageResults


def make(
    truth: list[Any], detections: list[Any], *, crowd: list[bool] | None = None, size: Any = (100, 80)
) -> ImageResults:
    """Return an image; `truth` holds (x1, y1, x2, y2, label), `detections` (x1, y1, x2, y2, label, score)."""
    t, f = np.array(truth, dtype=float).reshape(-1, 5), np.array(detections, dtype=float).reshape(-1, 6)
    return ImageResults(
        name="p.jpg",
        image=Image.new("RGB", size, (90, 90, 90)),
        boxes_G4=t[:, :4],
        labels_G=t[:, 4].astype(int),
        detected_D4=f[:, :4],
        detected_labels_D=f[:, 4].astype(int),
        scores_D=f[:, 5],
        crowd_G=None if crowd is None else np.array(crowd),
    )
