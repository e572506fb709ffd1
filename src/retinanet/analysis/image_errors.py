"""Give every error on an image one cause, by following the dense predictions through post-processing.

Sources of the categories: TIDE (Bolya et al., arXiv 2008.08115); the causes inside the network and its post-processing
are ours. Boxes are xyxy in original pixels unless stated. Shape suffixes: A anchors, G objects, D detections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from retinanet.analysis.anchor_matches import AnchorMatches
from retinanet.analysis.causes import ANCHOR_CAUSES, REINSTATED, FalseCause, MissCause
from retinanet.analysis.false_causes import false_causes
from retinanet.evaluate.per_image import MATCH_IOU, ImageResults, match_detections, overlaps

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.formats.records import DetectionData, Record
    from retinanet.predict.trace import Trace
    from retinanet.types import ArrayDetections

    Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """A predicted box with its class and score."""

    box: Box
    label: int
    score: float

    def to_coco(self, record: Record, data: DetectionData) -> dict[str, Any]:
        """Return the prediction as a COCO result."""
        x1, y1, x2, y2 = self.box
        return {
            "image_id": record.image_id,
            "category_id": data.category_ids[self.label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": self.score,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Missed:
    """An object that no detection matches.

    Args:
        image: index of the image in the data.
        object: index of the object in its record.
        label: class id.
        box: ground-truth box.
        cause: see `MissCause`.
        best: prediction of the object's class with the highest score among the boxes that fit the object (IoU at least
            0.5); None if no box fits.
        level: feature level of the highest score of any class at the object's anchors; None without such anchors.
        preferred_label, preferred_score: class id and value of this score.
        anchor_iou: highest IoU of an anchor with the object.
        detection: number of the detection (of those above the threshold) that suppressed the box, or that has the wrong
            class or place; None for other causes, and if a box below the threshold suppressed it.
        iou: IoU of this detection with the object.
        taken_by: index of the object that the anchors of this object are positive for, for the cause "anchors taken".
    """

    image: int
    object: int
    label: int
    box: Box
    cause: MissCause
    best: Prediction | None = None
    level: int | None = None
    preferred_label: int | None = None
    preferred_score: float | None = None
    anchor_iou: float | None = None
    detection: int | None = None
    iou: float | None = None
    taken_by: int | None = None

    def why(self, classes: Sequence[str]) -> str:
        """Return the numbers behind the cause, without a full stop. `classes` holds the name of each class id."""
        if self.cause in REINSTATED and self.best is not None:
            why = f"a box that fits has the score {self.best.score:.3f}"
            return why if self.detection is None else f"{why}, {self._overlap()}"
        if self.detection is not None:
            return self._overlap()
        parts = []
        if self.anchor_iou is not None and self.cause in ANCHOR_CAUSES:
            parts.append(f"highest IoU of an anchor {self.anchor_iou:.2f}")
        if self.taken_by is not None:
            parts.append(f"its anchors are positive for object {self.taken_by + 1}")
        if self.preferred_label is not None:
            parts.append(
                f"highest score at its anchors {self.preferred_score:.3f} ({classes[self.preferred_label]}, "
                f"level P{self.level})"
            )
        return ", ".join(parts)

    def _overlap(self) -> str:
        assert self.detection is not None  # noqa: S101
        return f"detection {self.detection + 1} has IoU {self.iou:.2f} with the object"


@dataclass(frozen=True, kw_only=True, slots=True)
class FalseDetection:
    """A detection that matches no object.

    Args:
        image: index of the image in the data.
        detection: number of the detection in its image.
        prediction: its box, class and score.
        cause: see `FalseCause`.
        object: index of the object that it overlaps; None for background.
        iou: IoU with this object.
    """

    image: int
    detection: int
    prediction: Prediction
    cause: FalseCause
    object: int | None = None
    iou: float | None = None


class ImageErrors:
    """The errors of one image.

    Args:
        number: index of the image.
        record: objects of the image.
        trace: post-processing of the image.
        anchors: what training makes of its anchors.
        levels: number of each feature level, finest first.
        threshold: lowest score of a detection; or a threshold for each class, which a detection exceeds.

    Attributes:
        shown: detections of the image, best first.
        kept_D: number of each detection among the boxes that NMS keeps.
    """

    def __init__(
        self,
        *,
        number: int,
        record: Record,
        trace: Trace,
        anchors: AnchorMatches,
        levels: Sequence[int],
        threshold: float | Sequence[float],
    ) -> None:
        self.number, self.record, self.trace, self.anchors, self.levels = number, record, trace, anchors, levels
        self.thresholds = threshold
        found = trace.detections()
        if isinstance(threshold, Sequence):
            is_shown_D, lowest = found.scores_D > np.array(threshold, np.float32)[found.labels_D], min(threshold)
        else:
            is_shown_D, lowest = found.scores_D >= threshold, threshold
        self.shown, self.kept_D = found[is_shown_D], np.flatnonzero(is_shown_D)
        boxes_D4, labels_D, scores_D = self.shown.boxes_D4, self.shown.labels_D, self.shown.scores_D
        item = ImageResults.of(record, boxes_D4=boxes_D4, labels_D=labels_D, scores_D=scores_D)
        self.match = match_detections(item, lowest)
        self.iou_DG = overlaps(self.shown.boxes_D4, record.boxes_G4)[0]
        self.iou_DG[:, record.crowd_G] = 0.0
        self.correct_D = self.match.correct_D
        self.same_DG = self.shown.labels_D[:, None] == record.labels_G[None]
        causes = false_causes(self.iou_DG, self.same_DG, self.match.unlabelled_D)
        self.false_causes = {d: causes[d] for d in np.flatnonzero(~self.correct_D).tolist()}

    @cached_property
    def iou_AG(self) -> npt.NDArray[np.floating[Any]]:
        """IoU of every predicted box with every object."""
        return overlaps(self.trace.flat.boxes_A4, self.record.boxes_G4)[0]

    def threshold_of(self, label: int) -> float:
        """Return the score threshold of a class."""
        return self.thresholds[label] if isinstance(self.thresholds, Sequence) else self.thresholds

    def detection_of(self, g: int) -> int | None:
        """Return the number of the detection that matches an object; None if the object is missed."""
        return next(iter(np.flatnonzero(self.match.object_D == g).tolist()), None)

    def missed(self) -> Iterator[Missed]:
        """Yield each missed object with its cause."""
        for g in np.flatnonzero(~self.match.matched_G).tolist():
            best = self.best(g)
            cause, detection = self._cause(g, best)
            level, preferred, score = self._preferred(g)
            yield Missed(
                image=self.number,
                object=g,
                label=int(self.record.labels_G[g]),
                box=box_of(self.record.boxes_G4[g]),
                cause=cause,
                best=None if best is None else self._prediction(best, g),
                level=level,
                preferred_label=preferred,
                preferred_score=score,
                anchor_iou=float(self.anchors.iou_AG[:, g].max(initial=0.0)),
                detection=detection,
                iou=None if detection is None else float(self.iou_DG[detection, g]),
                taken_by=self.anchors.taken_by(g) if cause == "anchors taken" else None,
            )

    def false(self) -> Iterator[FalseDetection]:
        """Yield each false detection with its cause."""
        for d, prediction in enumerate(predictions(self.shown)):
            if d not in self.false_causes:
                continue
            cause, g = self.false_causes[d]
            yield FalseDetection(
                image=self.number,
                detection=d,
                prediction=prediction,
                cause=cause,
                object=g,
                iou=None if g is None else float(self.iou_DG[d, g]),
            )

    def best(self, g: int) -> int | None:
        """Return the anchor of the highest score of the object's class among the boxes that fit the object.

        Boxes that are detections of another object, or overlap another object of the class more, are left out.
        """
        label = int(self.record.labels_G[g])
        rivals = np.flatnonzero((self.record.labels_G == label) & ~self.record.crowd_G)
        anchors = np.flatnonzero(self.iou_AG[:, g] >= MATCH_IOU)
        anchors = anchors[self.iou_AG[anchors, g] >= self.iou_AG[np.ix_(anchors, rivals)].max(axis=1)]
        own_D = (self.shown.labels_D == label) & self.correct_D
        anchors = anchors[~np.isin(anchors, self.trace.anchor_D[self.kept_D[own_D]])]
        return int(anchors[self.trace.flat.scores_AK[anchors, label].argmax()]) if len(anchors) else None

    def _cause(self, g: int, best: int | None) -> tuple[MissCause, int | None]:
        """Return the cause of a miss, and the number of the detection that is involved."""
        label = int(self.record.labels_G[g])
        if best is not None:
            fate = self.trace.fate(best, label)
            if fate.name == "detected":
                return "below the threshold", None
            if self.trace.flat.scores_AK[best, label] >= self.threshold_of(label):
                if fate.name == "suppressed":
                    assert fate.kept is not None  # noqa: S101
                    number = int(np.searchsorted(self.kept_D, fate.kept))
                    return "suppressed", number if fate.kept in self.kept_D else None
                if fate.name == "not_a_candidate":
                    return "not a candidate", None
                if fate.name == "beyond_max_detections":
                    return "beyond max_detections", None
        for d, (false_cause, shown_object) in self.false_causes.items():
            if shown_object == g and false_cause in ("wrong class", "badly localised"):
                return false_cause, d
        return self.anchors.cause(g) or "low scores", None

    def _preferred(self, g: int) -> tuple[int | None, int | None, float | None]:
        """Return the feature level, the class id and the value of the highest score at the object's anchors."""
        anchors = self.anchors.of_object(g)
        scores_CK = self.trace.flat.scores_AK[anchors]
        c, label = np.unravel_index(int(scores_CK.argmax()), scores_CK.shape)
        return self.levels[self.trace.flat.level_of(int(anchors[c]))], int(label), float(scores_CK[c, label])

    def _prediction(self, anchor: int, g: int) -> Prediction:
        flat, label = self.trace.flat, int(self.record.labels_G[g])
        return Prediction(box=box_of(flat.boxes_A4[anchor]), label=label, score=float(flat.scores_AK[anchor, label]))


def predictions(found: ArrayDetections) -> list[Prediction]:
    """Return the detections of an image, in their order."""
    rows = zip(found.boxes_D4, found.labels_D.tolist(), found.scores_D.tolist(), strict=True)
    return [Prediction(box=box_of(box_4), label=label, score=score) for box_4, label, score in rows]


def box_of(box_4: npt.NDArray[np.floating[Any]]) -> Box:
    """Return a box as four numbers."""
    x1, y1, x2, y2 = box_4.tolist()
    return x1, y1, x2, y2
