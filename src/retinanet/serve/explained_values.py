"""Write predictions, scores and feature levels as values that JSON can hold. Boxes are xyxy in original pixels.

Shape suffix: K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.predict.dense import DenseOutputs, LevelOutputs
    from retinanet.predict.trace import FlatOutputs, Trace

TOP_CLASSES: Final = 3
"""Number of classes listed for a predicted box: the winning class and the runner-ups."""
DETAIL: Final = ("finest", "fine", "medium", "coarse", "coarsest")
"""Names of the feature levels in plain words, from the smallest objects to the largest."""


def rounded_box(box_4: npt.NDArray[np.floating[Any]] | Sequence[float]) -> list[float]:
    """Return a box as four numbers with two decimals."""
    return [round(float(value), 2) for value in box_4]


def rounded(value: float | np.floating[Any]) -> float:
    """Return a score or an IoU with six decimals."""
    return round(float(value), 6)


def top_classes(scores_K: npt.NDArray[np.float32], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the classes with the highest scores, best first."""
    order = np.argsort(-scores_K, kind="stable")[:TOP_CLASSES].tolist()
    return [{"class_id": k, "class": classes[k], "score": rounded(scores_K[k])} for k in order]


def predicted(flat: FlatOutputs, anchor: int, label: int, classes: Sequence[str]) -> dict[str, Any]:
    """Return the box predicted from an anchor, with the score of one class and the classes with the highest scores."""
    return {
        "box": rounded_box(flat.boxes_A4[anchor]),
        "score": rounded(flat.scores_AK[anchor, label]),
        "class_id": label,
        "class": classes[label],
        "classes": top_classes(flat.scores_AK[anchor], classes),
    }


def detections(
    trace: Trace, kept_D: npt.NDArray[np.int64] | Sequence[int], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the detections with these numbers among the boxes that NMS keeps."""
    return [predicted(trace.flat, int(trace.anchor_D[d]), int(trace.label_D[d]), classes) for d in kept_D]


def shown(trace: Trace, threshold_K: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the numbers of the detections above the threshold of their class, among the boxes that NMS keeps."""
    found = trace.detections()
    return np.flatnonzero(found.scores_D > threshold_K[found.labels_D])


def level_size(level: LevelOutputs) -> float:
    """Return the mean size of a level's anchors: the geometric mean of the square roots of their areas, pixels."""
    anchors_C4 = level.anchors_HWC4[0, 0]
    areas_C = np.prod(anchors_C4[:, 2:] - anchors_C4[:, :2], axis=1)
    return float(np.exp(np.log(np.sqrt(areas_C)).mean()))


def level_details(dense: DenseOutputs) -> list[str]:
    """Return each feature level in plain words, such as "fine detail, about 64 px"."""
    last = max(1, len(dense.levels) - 1)
    words = [DETAIL[round(i * (len(DETAIL) - 1) / last)] for i in range(len(dense.levels))]
    return [f"{word} detail, about {level_size(level):.0f} px" for word, level in zip(words, dense.levels, strict=True)]
