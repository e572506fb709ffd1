"""Provide a detector whose detections and dense outputs agree: a scene with one object of each of four fates.

Boxes are xyxy in pixels of an image of 640 x 480. Every predicted box has an anchor at its own place.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.images import Frame
from retinanet.predict.dense import DenseOutputs, LevelOutputs
from retinanet.predict.trace import FlatOutputs, Trace
from tests.serve.fakes import Fake

if TYPE_CHECKING:
    from retinanet.config import PostprocessConfig
    from retinanet.images import Scaled
    from retinanet.predict.batches import InputBatch, Source
    from retinanet.types import ArrayDetections

CELL, PLATELET, WHITE = range(3)
FOUND: Final = (60.0, 60.0, 160.0, 160.0)
"""A cell that is detected."""
SUPPRESSED: Final = (90.0, 60.0, 190.0, 160.0)
"""A cell whose box has an IoU of 7,000 / 13,000 = 0.538 with the first one."""
LOW: Final = (300.0, 300.0, 360.0, 360.0)
"""A platelet with the score 0.37; the score of a cell is 0.35 there."""
CONFUSED: Final = (450.0, 100.0, 550.0, 200.0)
"""A place at which a platelet is detected with 0.8; a white cell has 0.6 there."""
ROWS: Final = (
    (FOUND, (0.9, 0.02, 0.01)),
    (SUPPRESSED, (0.8, 0.03, 0.01)),
    (LOW, (0.35, 0.37, 0.01)),
    (CONFUSED, (0.02, 0.8, 0.4)),
)
"""Boxes of the finest level, with the score of each class."""


def scene() -> DenseOutputs:
    """Return the dense outputs of the scene. A second level holds one box that no threshold shows."""
    boxes_A4 = np.array([box for box, _ in ROWS], np.float32)
    scores_AK = np.array([scores for _, scores in ROWS], np.float32)
    coarse_A4 = np.array([[0, 0, 640, 480]], np.float32)
    levels = [
        LevelOutputs(3, 8, scores_AK[None, :, None], boxes_A4[None, :, None], boxes_A4[None, :, None]),
        LevelOutputs(4, 16, np.zeros((1, 1, 1, 3), np.float32), coarse_A4[None, :, None], coarse_A4[None, :, None]),
    ]
    return DenseOutputs(frame=Frame(640, 480, 640, 480), levels=tuple(levels))


class SceneDetector(Fake):
    """Return the same scene for every image."""

    def _detect(self, batch: InputBatch, config: PostprocessConfig) -> list[ArrayDetections]:
        return [Trace(FlatOutputs.of(scene()), config).detections() for _ in batch.frames]

    def dense(self, source: Source | Scaled) -> DenseOutputs:
        return scene()


def load(path: Path, device: str, *, threads: int = 0, bit_depth: int = 0, **nms: object) -> SceneDetector:
    """Replace `retinanet.load`."""
    return SceneDetector()
