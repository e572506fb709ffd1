"""Precision, recall and F1 of detections over the score threshold, at IoU 0.5, of all classes together.

Shape suffix: T thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.evaluate.per_image import crowd_regions, pair_detections

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from retinanet.evaluate.per_image import ImageResults

    Floats = npt.NDArray[np.float64]

THRESHOLDS: Final = tuple(round(0.01 * step, 2) for step in range(1, 100))
"""Thresholds of a curve."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ThresholdCurve:
    """Metrics of the detections with at least each score.

    Args:
        thresholds_T: score thresholds, rising.
        precision_T: share of the detections that are right; NaN without detections.
        recall_T: share of the objects that are found; NaN without objects.
        f1_T: 2 hits / (detections + objects); 0 without detections and objects.
    """

    thresholds_T: Floats
    precision_T: Floats
    recall_T: Floats
    f1_T: Floats


def threshold_curve(items: Sequence[ImageResults]) -> ThresholdCurve:
    """Return precision, recall and F1 of all images over `THRESHOLDS`.

    A detection is right if it is paired with an object of its class, see `per_image.pair_detections`. Detections in
    crowd regions do not count.
    """
    right, wrong, objects = [np.zeros(0)], [np.zeros(0)], 0
    for item in items:
        partner_D, in_crowd_D = pair_detections(item)
        scores_D = np.asarray(item.scores_D, dtype=np.float64)
        right.append(scores_D[partner_D >= 0])
        wrong.append(scores_D[(partner_D < 0) & ~in_crowd_D])
        objects += int((~crowd_regions(item)).sum())
    thresholds_T = np.array(THRESHOLDS)
    hits_T, false_T = (
        len(scores) - np.searchsorted(np.sort(scores), thresholds_T) for scores in map(np.concatenate, (right, wrong))
    )
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: not defined
        precision_T, recall_T = hits_T / (hits_T + false_T), hits_T / np.float64(objects)
    f1_T = 2 * hits_T / np.maximum(hits_T + false_T + objects, 1)
    return ThresholdCurve(thresholds_T=thresholds_T, precision_T=precision_T, recall_T=recall_T, f1_T=f1_T)
