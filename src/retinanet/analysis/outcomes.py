"""Follow every object and every detection of a dataset over all score thresholds: found, missed, false, unlabelled.

A threshold removes only detections with the lowest scores, so that the pairs of the other detections stay the same
(`evaluate.per_image.pair_detections`, `evaluate.confusion.confusion_pairs`). An object therefore is found up to the
score of its detection, and a false detection is false up to its own score.

Scores are whole thousandths, rounded down, and thresholds whole hundredths ("steps"), so that every comparison of both
is exact. Boxes are xyxy, original pixels. Shape suffixes: G ground-truth boxes, D detections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.analysis.causes import CAUSES
from retinanet.analysis.false_causes import false_causes
from retinanet.evaluate.confusion import confusion_pairs
from retinanet.evaluate.per_image import ImageResults, match_detections, overlaps

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.analysis.error_causes import ErrorCauses

    Ints = npt.NDArray[np.integer]
    Bools = npt.NDArray[np.bool_]

STEPS: Final = 100
"""Number of threshold steps from 0 to 1."""
NO_DETECTION: Final = "no detection"
"""Kind of a missed object that no detection fits, if its cause inside the network was not measured."""
KINDS: Final = (*CAUSES, NO_DETECTION)
"""Kinds of errors."""
UNLABELLED: Final = KINDS.index("unlabelled?")
SIZES: Final = ("small", "medium", "large")
SIZE_LIMITS: Final = (32**2, 96**2)
"""Area of a box from which it is medium and large, square pixels (COCO)."""
NEVER: Final = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageOutcomes:
    """Objects and detections of an image, for all thresholds.

    Args:
        item: image with its objects and detections.
        found_G: score of the detection that matches each object, thousandths; -1 without such a detection.
        kind_G: kind of the error if the object is missed, as an index of `KINDS`.
        size_G: index of `SIZES`.
        crowd_G: True for crowd regions, which are ignored.
        score_D: score in thousandths.
        matched_D: index of the object of its class that each detection matches, or -1.
        ignored_D: True for each detection that is ignored, because it lies in a crowd region.
        kind_D: kind of the error of a false detection, as an index of `KINDS`; -1 for other detections.
        size_D: index of `SIZES`.
        partner_D: index of the object, of any class, that the confusion matrix pairs with each detection, or -1.
    """

    item: ImageResults
    found_G: Ints
    kind_G: Ints
    size_G: Ints
    crowd_G: Bools
    score_D: Ints
    matched_D: Ints
    ignored_D: Bools
    kind_D: Ints
    size_D: Ints
    partner_D: Ints


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers of objects and detections at a threshold.

    Precision, recall and F1 depend on the labels alone: probably unlabelled detections count as false.
    """

    objects: int
    found: int
    false: int
    unlabelled: int

    @property
    def missed(self) -> int:
        """Number of objects without a matching detection."""
        return self.objects - self.found

    @property
    def detections(self) -> int:
        """Number of detections, without the ignored ones."""
        return self.found + self.false + self.unlabelled

    @property
    def recall(self) -> float | None:
        """Share of the objects that are found; None without objects."""
        return self.found / self.objects if self.objects else None

    @property
    def precision(self) -> float | None:
        """Share of the detections that match an object; None without detections."""
        return self.found / self.detections if self.detections else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None without objects and detections."""
        total = self.objects + self.detections
        return 2 * self.found / total if total else None


class Outcomes:
    """Objects and detections of a dataset, for all thresholds.

    Args:
        items: images with their objects and detections.
        classes: name of each class id.
        threshold: threshold at which the kinds of the missed objects are determined.
        causes: causes of the errors of the network, measured at `threshold`. Without these, the kinds of missed objects
            follow from the detections alone.
    """

    def __init__(
        self,
        items: Sequence[ImageResults],
        classes: Sequence[str],
        *,
        threshold: float,
        causes: ErrorCauses | None = None,
    ) -> None:
        measured: dict[int, dict[int, int]] = {}
        for miss in causes.missed if causes is not None else ():
            measured.setdefault(miss.image, {})[miss.object] = KINDS.index(miss.cause)
        self.images = [_image(item, threshold, measured.get(i, {})) for i, item in enumerate(items)]
        labels = [
            label for item in items for array in (item.labels_G, item.detected_labels_D) for label in array.tolist()
        ]
        self.classes = (*classes, *(str(label) for label in range(len(classes), max(labels, default=-1) + 1)))
        self.step = round(threshold * STEPS)

    @cached_property
    def objects(self) -> Ints:
        """All objects, (objects, 4): class id, size, kind, and the highest step at which it is found (-1: never)."""
        return _rows(
            np.stack([i.item.labels_G, i.size_G, i.kind_G, i.found_G // 10], 1)[~i.crowd_G] for i in self.images
        )

    @cached_property
    def false(self) -> Ints:
        """All false and probably unlabelled detections, (D, 4): class id, size, kind, and their highest step."""
        return _rows(
            np.stack([i.item.detected_labels_D, i.size_D, i.kind_D, i.score_D // 10], 1)[i.kind_D >= 0]
            for i in self.images
        )

    @cached_property
    def pairs(self) -> Ints:
        """Detections that the confusion matrix counts, (D, 4): class id of the object, class id, size, highest step.

        The class id of the object is the number of classes if the detection has no object. The size is that of the
        object, or of a detection without one.
        """
        return _rows(_pairs(image, len(self.classes)) for image in self.images)

    def counts(self, step: int | None = None, *, label: int | None = None) -> Counts:
        """Return the counts at a threshold step (default: the step of `threshold`), of all classes or of one."""
        step = self.step if step is None else step
        objects, false = (
            table if label is None else table[table[:, 0] == label] for table in (self.objects, self.false)
        )
        shown = false[false[:, 3] >= step]
        unlabelled = int((shown[:, 2] == UNLABELLED).sum())
        return Counts(
            objects=len(objects),
            found=int((objects[:, 3] >= step).sum()),
            false=len(shown) - unlabelled,
            unlabelled=unlabelled,
        )

    def confusion(self, step: int | None = None) -> npt.NDArray[np.int64]:
        """Return the confusion matrix at a threshold step, (K + 1, K + 1), as `evaluate.confusion_matrix` does."""
        K, step = len(self.classes), self.step if step is None else step
        counts = np.zeros((K + 1, K + 1), dtype=np.int64)
        shown = self.pairs[self.pairs[:, 3] >= step]
        np.add.at(counts, (shown[:, 0], shown[:, 1]), 1)
        counts[:K, K] = np.bincount(self.objects[:, 0], minlength=K) - counts[:K, :K].sum(axis=1)
        return counts


def _image(item: ImageResults, threshold: float, measured: Mapping[int, int]) -> ImageOutcomes:
    match = match_detections(item, 0.0 if not len(item.scores_D) else float(np.min(item.scores_D)))
    crowd_G, partner_D = match.crowd_G, match.object_D
    ignored_D = match.correct_D & (partner_D < 0)
    score_D = thousandths(item.scores_D)
    found_G = np.full(len(crowd_G), NEVER)
    found_G[partner_D[partner_D >= 0]] = score_D[partner_D >= 0]
    iou_DG, _ = overlaps(item.detected_D4, item.boxes_G4)
    same_DG = np.asarray(item.detected_labels_D)[:, None] == np.asarray(item.labels_G)[None]
    causes = false_causes(iou_DG * ~crowd_G, same_DG, match.unlabelled_D)
    kind_D = np.array(
        [NEVER if right else KINDS.index(cause) for right, (cause, _) in zip(match.correct_D, causes, strict=True)],
        dtype=np.int64,
    )
    kind_G = np.where(found_G < 0, KINDS.index(NO_DETECTION), KINDS.index("below the threshold"))
    for d in np.flatnonzero((kind_D >= 0) & (score_D >= round(threshold * STEPS) * 10))[::-1]:
        cause, g = causes[d]
        if g is not None and found_G[g] < 0 and cause in ("wrong class", "badly localised"):
            kind_G[g] = KINDS.index(cause)
    for g, kind in measured.items():
        kind_G[g] = kind
    return ImageOutcomes(
        item=item,
        found_G=found_G,
        kind_G=kind_G,
        size_G=sizes(item.boxes_G4),
        crowd_G=crowd_G,
        score_D=score_D,
        matched_D=partner_D,
        ignored_D=ignored_D,
        kind_D=kind_D,
        size_D=sizes(item.detected_D4),
        partner_D=confusion_pairs(item, ignored_D, iou_DG),
    )


def _pairs(image: ImageOutcomes, background: int) -> Ints:
    partner_D, counted_D = image.partner_D, ~image.ignored_D
    has_object_D = partner_D >= 0
    true_D, size_D = np.full(len(partner_D), background), image.size_D.copy()
    true_D[has_object_D] = np.asarray(image.item.labels_G)[partner_D[has_object_D]]
    size_D[has_object_D] = image.size_G[partner_D[has_object_D]]
    return np.stack([true_D, image.item.detected_labels_D, size_D, image.score_D // 10], 1)[counted_D]


def thousandths(scores_D: npt.NDArray[np.floating]) -> Ints:
    """Return the largest number of thousandths, from 0 to 1000, that is not above each score."""
    found: Ints = np.searchsorted(np.arange(1001) / 1000, np.asarray(scores_D, dtype=np.float64), side="right") - 1
    return found.clip(0)


def sizes(boxes_D4: npt.NDArray[np.floating]) -> Ints:
    """Return the size of each box as an index of `SIZES`, by its area."""
    boxes = np.asarray(boxes_D4, dtype=np.float64).reshape(-1, 4)
    found: Ints = np.searchsorted(SIZE_LIMITS, np.prod((boxes[:, 2:] - boxes[:, :2]).clip(0), axis=1), side="right")
    return found


def _rows(tables: object) -> Ints:
    return np.concatenate([np.zeros((0, 4), dtype=np.int64), *tables])  # type: ignore[misc]
