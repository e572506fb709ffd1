"""Compare detections within the tolerances of an export."""

from __future__ import annotations

from typing import Any

import numpy as np

from retinanet.config import PostprocessConfig
from retinanet.export.parity import compare_detections
from retinanet.types import ArrayDetections


def equal_detections(first: Any, second: Any, **options: Any) -> bool:
    a, b = (
        ArrayDetections(boxes_D4=d.xyxy, scores_D=d.confidence, labels_D=np.asarray(d.class_id, np.int64))
        for d in (first, second)
    )
    return compare_detections(a, b, PostprocessConfig(**options)).agrees
