"""Follow dense predictions through post-processing: what happened to the box of each anchor and class.

The rules are those of `postprocess` and `ops.candidates`, in numpy, because the server never imports torch.
Boxes are xyxy in original pixels. Shape suffixes: A anchors (all levels, finest first), K classes, C candidates,
D boxes that NMS keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import supervision as sv

from retinanet.predict.merge import nms, suppression_groups
from retinanet.types import ArrayDetections

if TYPE_CHECKING:
    from retinanet.config import PostprocessConfig
    from retinanet.predict.dense import DenseOutputs

Floats = npt.NDArray[np.float32]
FateName = Literal["detected", "below_threshold", "not_a_candidate", "suppressed", "beyond_max_detections"]
"""What happened to a box: it became a detection, or the step of post-processing that dropped it."""


@dataclass(frozen=True, slots=True)
class FlatOutputs:
    """Dense outputs of all levels, concatenated. `starts` holds the first anchor of each level and the total count."""

    scores_AK: Floats
    boxes_A4: Floats
    anchors_A4: Floats
    starts: tuple[int, ...]

    @classmethod
    def of(cls, dense: DenseOutputs) -> FlatOutputs:
        """Return the outputs of an image, finest level first."""
        K = dense.levels[0].scores_HWCK.shape[-1]
        scores = [level.scores_HWCK.reshape(-1, K) for level in dense.levels]
        return cls(
            scores_AK=np.concatenate(scores),
            boxes_A4=np.concatenate([level.boxes_HWC4.reshape(-1, 4) for level in dense.levels]),
            anchors_A4=np.concatenate([level.anchors_HWC4.reshape(-1, 4) for level in dense.levels]),
            starts=(0, *np.cumsum([len(part) for part in scores]).tolist()),
        )

    def level_of(self, anchor: int) -> int:
        """Return the number of the level of an anchor, 0 for the finest."""
        return int(np.searchsorted(self.starts, anchor, side="right")) - 1


@dataclass(frozen=True, slots=True)
class Fate:
    """What happened to a box.

    Args:
        name: the step that dropped it, or `detected`.
        kept: number of the box that it became, or that suppressed it, among the boxes that NMS keeps, best first;
            otherwise None. Detections are the first `max_detections` of these.
        iou: IoU of a suppressed box with the box that suppressed it; otherwise None.
    """

    name: FateName
    kept: int | None = None
    iou: float | None = None


class Trace:
    """Post-processing of one image, with every step kept.

    Args:
        flat: dense outputs of the image.
        config: thresholds and limits.

    Attributes:
        candidate_AK: True for the (anchor, class) pairs that NMS compares.
        anchor_D, label_D: anchor and class id of the boxes that NMS keeps, best first, before `max_detections` applies.
    """

    def __init__(self, flat: FlatOutputs, config: PostprocessConfig) -> None:
        self.flat, self.config = flat, config
        self.candidate_AK = _candidates(flat, config.score_threshold, config.candidates_per_level)
        anchor_C, label_C = np.nonzero(self.candidate_AK)
        group_C = suppression_groups(label_C, config)
        keep_D = nms(flat.boxes_A4[anchor_C], flat.scores_AK[anchor_C, label_C], group_C, config.nms_threshold)
        self.anchor_D, self.label_D = anchor_C[keep_D], label_C[keep_D]

    def detections(self) -> ArrayDetections:
        """Return the detections of the image, best first."""
        anchor_D, label_D = self.anchor_D[: self.config.max_detections], self.label_D[: self.config.max_detections]
        return ArrayDetections(
            boxes_D4=self.flat.boxes_A4[anchor_D],
            scores_D=self.flat.scores_AK[anchor_D, label_D],
            labels_D=label_D.astype(np.int64),
        )

    def fate(self, anchor: int, label: int) -> Fate:
        """Return what happened to the box of an anchor and a class."""
        score = float(self.flat.scores_AK[anchor, label])
        if not score > self.config.score_threshold:
            return Fate("below_threshold")
        if not self.candidate_AK[anchor, label]:
            return Fate("not_a_candidate")
        same = np.flatnonzero((self.anchor_D == anchor) & (self.label_D == label))
        if len(same):
            is_detected = same[0] < self.config.max_detections
            return Fate("detected", kept=int(same[0])) if is_detected else Fate("beyond_max_detections")
        # Several kept boxes can overlap this one too much. NMS removed it because of the one with the highest score.
        overlap_D = sv.box_iou_batch(self.flat.boxes_A4[anchor][None], self.flat.boxes_A4[self.anchor_D])[0]
        better_D = self.flat.scores_AK[self.anchor_D, self.label_D] >= score
        better_D &= (self.label_D == label) | self.config.agnostic_nms
        number = int(np.flatnonzero(better_D & (overlap_D > self.config.nms_threshold))[0])
        return Fate("suppressed", kept=number, iou=float(overlap_D[number]))


def _candidates(flat: FlatOutputs, threshold: float, per_level: int) -> npt.NDArray[np.bool_]:
    """Return which (anchor, class) pairs are candidates for NMS, (A, K)."""
    candidate_AK = flat.scores_AK > threshold
    for start, end in pairwise(flat.starts):
        part = candidate_AK[start:end].reshape(-1)  # a view
        chosen = np.flatnonzero(part)
        if len(chosen) > per_level:
            scores_C = flat.scores_AK[start:end].reshape(-1)[chosen]
            part[:] = False
            part[chosen[(-scores_C).argsort(kind="stable")[:per_level]]] = True
    return candidate_AK
