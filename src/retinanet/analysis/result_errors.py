"""Find the errors in COCO results: the causes that the detections alone show, without the network.

Boxes are xyxy in original pixels. Shape suffixes: G objects, D detections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from retinanet.analysis.causes import NO_DETECTION
from retinanet.analysis.error_causes import ErrorCauses
from retinanet.analysis.false_causes import false_causes
from retinanet.analysis.image_errors import FalseDetection, Missed, Prediction, box_of, predictions
from retinanet.evaluate.per_image import ImageResults, match_detections, overlaps
from retinanet.types import ArrayDetections

if TYPE_CHECKING:
    from retinanet.data import DetectionData


def errors_from_results(data: DetectionData, items: Sequence[ImageResults], *, threshold: float) -> ErrorCauses:
    """Return the errors of detections at a score threshold.

    The causes are those of `error_causes`, except for missed objects that no detection fits: the cause is "no
    detection", because what the network predicted at these objects is not known.

    Args:
        data: images and objects.
        items: images of `data` in their order, with all detections, see `per_image.items_from_results`.
        threshold: lowest score of a detection.
    """
    images = [_ImageErrors(number, item, threshold) for number, item in enumerate(items)]
    return ErrorCauses(
        data=data,
        threshold=threshold,
        detections=tuple(image.shown for image in images),
        missed=tuple(miss for image in images for miss in image.missed()),
        false=tuple(false for image in images for false in image.false()),
    )


class _ImageErrors:
    """The errors of an image. Detections are ordered by falling score."""

    def __init__(self, number: int, item: ImageResults, threshold: float) -> None:
        order = np.argsort(-np.asarray(item.scores_D), kind="stable")
        self.number, self.item = number, item
        self.found = ArrayDetections(
            boxes_D4=np.asarray(item.detected_D4)[order],
            scores_D=np.asarray(item.scores_D)[order],
            labels_D=np.asarray(item.detected_labels_D, dtype=np.int64)[order],
        )
        match = match_detections(item, threshold)
        self.shown = self.found[match.shown_D[order]]
        self.match, self.partner_D, self.correct_D = match, match.object_D[order], match.correct_D[order]
        self.iou_DG = overlaps(self.found.boxes_D4, item.boxes_G4)[0] * ~match.crowd_G
        same_DG = self.found.labels_D[:, None] == np.asarray(item.labels_G)[None]
        causes = false_causes(self.iou_DG, same_DG, match.unlabelled_D[order])
        self.false_causes = {d: causes[d] for d in np.flatnonzero(~self.correct_D[: len(self.shown)]).tolist()}

    def missed(self) -> Iterator[Missed]:
        """Yield each missed object with its cause."""
        for g in np.flatnonzero(~self.match.matched_G).tolist():
            best, cause, detection = None, NO_DETECTION, None
            hidden = np.flatnonzero(self.partner_D == g)
            if len(hidden):
                best, cause = predictions(self.found[hidden[:1]])[0], "below the threshold"
            else:
                for d, (false_cause, overlapped) in self.false_causes.items():
                    if overlapped == g and false_cause in ("wrong class", "badly localised"):
                        cause, detection = false_cause, d
                        break
            yield Missed(
                image=self.number,
                object=g,
                label=int(self.item.labels_G[g]),
                box=box_of(np.asarray(self.item.boxes_G4)[g]),
                cause=cause,  # type: ignore[arg-type]
                best=best,
                detection=detection,
                iou=None if detection is None else float(self.iou_DG[detection, g]),
            )

    def false(self) -> Iterator[FalseDetection]:
        """Yield each false detection with its cause."""
        all_shown: list[Prediction] = predictions(self.shown)
        for d, (cause, g) in self.false_causes.items():
            yield FalseDetection(
                image=self.number,
                detection=d,
                prediction=all_shown[d],
                cause=cause,
                object=g,
                iou=None if g is None else float(self.iou_DG[d, g]),
            )
