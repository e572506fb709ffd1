"""Count what a higher `nms_threshold` would find: the objects, and the price in false detections.

Every count is that of a real run of NMS and matching. Shape suffixes: A anchors, K classes, C candidates, D detections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from retinanet.evaluate.per_image import ImageResults, match_detections
from retinanet.ops.nms import nms
from retinanet.predict.merge import suppression_groups

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.formats.records import Record
    from retinanet.predict.trace import Trace

    Counts = npt.NDArray[np.int64]

NMS_THRESHOLDS: Final = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
"""Values of `nms_threshold` that are tried, as far as they exceed that of the model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NmsTrial:
    """Outcome of one value of `nms_threshold` on a dataset, with all other options unchanged.

    Args:
        nms_threshold: value that was tried.
        found_K: number of found objects of each class.
        false_K: number of false and of probably unlabelled detections of each class.
    """

    nms_threshold: float
    found_K: Counts
    false_K: Counts

    def f1(self, objects: int) -> float:
        """Return F1 = 2 found / (objects + detections) of all classes."""
        found = int(self.found_K.sum())
        return 2 * found / max(1, objects + found + int(self.false_K.sum()))


class NmsTrials:
    """Collect the outcomes of all values over the images of a dataset.

    Args:
        classes: number of classes.
        threshold: lowest score of a detection.
    """

    def __init__(self, classes: int, threshold: float) -> None:
        self.classes, self.threshold = classes, threshold
        self.counts: dict[float, tuple[Counts, Counts]] = {}

    def add(self, record: Record, trace: Trace) -> None:
        """Add an image. The first value that is counted is the model's own."""
        flat, config = trace.flat, trace.config
        anchor_C, label_C = np.nonzero(trace.candidate_AK)
        score_C = flat.scores_AK[anchor_C, label_C]
        # NMS compares a box with those of higher scores only: boxes below the threshold change no detection above it.
        shown_C = score_C >= self.threshold
        anchor_C, label_C, score_C = anchor_C[shown_C], label_C[shown_C], score_C[shown_C]
        box_C4 = flat.boxes_A4[anchor_C]
        tensors = [torch.from_numpy(values) for values in (box_C4, score_C, suppression_groups(label_C, config))]
        higher = [value for value in NMS_THRESHOLDS if value > config.nms_threshold]
        for value in (config.nms_threshold, *higher):
            keep_D = nms(*tensors, threshold=value, limit=config.max_detections).numpy()
            item = ImageResults.of(record, boxes_D4=box_C4[keep_D], labels_D=label_C[keep_D], scores_D=score_C[keep_D])
            match = match_detections(item, self.threshold)
            zeros = np.zeros(self.classes, np.int64), np.zeros(self.classes, np.int64)
            found_K, false_K = self.counts.setdefault(value, zeros)
            found_K += np.bincount(record.labels_G[match.matched_G & ~record.crowd_G], minlength=self.classes)
            false_K += np.bincount(item.detected_labels_D[~match.correct_D], minlength=self.classes)

    def results(self) -> tuple[NmsTrial, ...]:
        """Return the outcome of each value, the model's own first."""
        return tuple(
            NmsTrial(nms_threshold=value, found_K=found_K, false_K=false_K)
            for value, (found_K, false_K) in self.counts.items()
        )
