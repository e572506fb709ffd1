"""Measure how long models take for an image."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from retinanet.config import TileConfig
    from retinanet.predict.detector import BaseDetector


def milliseconds_per_image(
    detectors: Sequence[BaseDetector], images: Sequence[Path], tiling: TileConfig
) -> list[float]:
    """Return the median time of each detector for one image, from the file to the detections, in milliseconds.

    The detectors take turns, image by image, so that other work on the machine affects all of them. Each detects in the
    first image once before the measurement.

    Args:
        detectors: models.
        images: image files, at least one.
        tiling: tile options, as for `retinanet predict --tile`.
    """

    def detect(detector: BaseDetector, image: Path) -> None:
        for result in detector.stream([[image]], workers=0, tiling=tiling):
            result.result()

    for detector in detectors:
        detect(detector, images[0])
    seconds: list[list[float]] = [[] for _ in detectors]
    for image in images:
        for detector, times in zip(detectors, seconds, strict=True):
            start = time.perf_counter()
            detect(detector, image)
            times.append(time.perf_counter() - start)
    return [1000 * float(np.median(times)) for times in seconds]
