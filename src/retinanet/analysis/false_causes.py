"""Name the cause of each false detection from its overlaps with the objects (TIDE, Bolya et al., arXiv 2008.08115).

Shape suffixes: G ground-truth boxes, D detections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retinanet.evaluate.per_image import MATCH_IOU, NEAR

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.analysis.causes import FalseCause


def false_causes(
    iou_DG: npt.NDArray[np.floating],
    same_DG: npt.NDArray[np.bool_],
    unlabelled_D: npt.NDArray[np.bool_],
) -> list[tuple[FalseCause, int | None]]:
    """Return the cause that each detection has if it is false, and the index of the object that it overlaps.

    Args:
        iou_DG: IoU of the detections and the objects; 0 for crowd regions.
        same_DG: whether detection and object have the same class.
        unlabelled_D: whether each detection is probably an object without a label.
    """
    causes: list[tuple[FalseCause, int | None]] = [
        ("unlabelled?" if unlabelled else "background", None) for unlabelled in unlabelled_D
    ]
    rules: tuple[tuple[FalseCause, bool, float], ...] = (  # of several causes, the last one here counts
        ("wrong class and place", False, NEAR),
        ("badly localised", True, NEAR),
        ("wrong class", False, MATCH_IOU),
        ("duplicate", True, MATCH_IOU),
    )
    if not iou_DG.shape[1]:
        return causes
    for cause, is_same, least in rules:
        overlap_DG = iou_DG * (same_DG == is_same)
        nearest_D = overlap_DG.argmax(axis=1)
        for d in np.flatnonzero(overlap_DG.max(axis=1) >= least).tolist():
            causes[d] = (cause, int(nearest_D[d]))
    return causes
