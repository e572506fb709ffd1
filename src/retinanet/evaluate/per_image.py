"""Compare the detections of each image with the ground truth, and find the best score threshold.

Boxes are xyxy, original pixels. Shape suffixes: G ground-truth boxes, D detections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.formats.records import DetectionData, Record

    Floats = npt.NDArray[np.floating]
    Ints = npt.NDArray[np.integer]

MATCH_IOU: Final = 0.5
"""Minimum IoU of a detection and the object that it matches."""
NEAR: Final = 0.1
"""Lowest IoU with an object at which a false detection shows this object badly, and not background (TIDE)."""
CONFIDENT: Final = 0.5
"""Score from which a prediction makes a wrong or missing label probable."""
PART: Final = 0.7
"""A detection with more than this share of its area in one labelled object of its class is a part of this object."""


@dataclass(frozen=True, kw_only=True)
class ImageResults:
    """An image with its ground truth and its detections.

    Args:
        name: caption of the image.
        image: the image, or its path.
        boxes_G4: ground-truth boxes.
        labels_G: class ids of the ground-truth boxes.
        detected_D4: boxes of the detections.
        detected_labels_D: class ids of the detections.
        scores_D: scores of the detections.
        crowd_G: True for crowd regions; None if the image has none.

    Raises:
        ValueError: an array has another shape than its name requires.
    """

    name: str
    image: Image.Image | Path
    boxes_G4: Floats
    labels_G: Ints
    detected_D4: Floats
    detected_labels_D: Ints
    scores_D: Floats
    crowd_G: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        G, D = len(self.boxes_G4), len(self.detected_D4)
        shapes = {
            "boxes_G4": (G, 4),
            "labels_G": (G,),
            "detected_D4": (D, 4),
            "detected_labels_D": (D,),
            "scores_D": (D,),
        }
        for name, shape in shapes.items() if self.crowd_G is None else [*shapes.items(), ("crowd_G", (G,))]:
            actual = np.shape(getattr(self, name))
            if actual != shape:
                raise ValueError(f"{self.name}: {name} needs the shape {shape}, found {actual}")

    @classmethod
    def of(cls, record: Record, *, boxes_D4: Floats, labels_D: Ints, scores_D: Floats) -> Self:
        """Return the image and the ground truth of a record with detections: boxes, class ids and scores."""
        return cls(
            name=record.path.name,
            image=record.path,
            boxes_G4=record.boxes_G4,
            labels_G=record.labels_G,
            crowd_G=record.crowd_G,
            detected_D4=boxes_D4,
            detected_labels_D=labels_D,
            scores_D=scores_D,
        )


def items_from_results(data: DetectionData, results: Iterable[Mapping[str, Any]]) -> list[ImageResults]:
    """Return every image of `data` with its detections from COCO results (image_id, category_id, bbox, score).

    Raises:
        ValueError: a result has an image or category id that `data` lacks.
    """
    label_of = {category_id: label for label, category_id in enumerate(data.category_ids)}
    detections: dict[int, list[tuple[list[float], int, float]]] = {record.image_id: [] for record in data.records}
    for row in results:
        if row["image_id"] not in detections or row["category_id"] not in label_of:
            raise ValueError(f"expected image and category ids of {data.source}, found the result {dict(row)}")
        x, y, w, h = row["bbox"]
        detections[row["image_id"]].append(([x, y, x + w, y + h], label_of[row["category_id"]], row["score"]))
    return [
        ImageResults.of(
            record,
            boxes_D4=np.array([box for box, _, _ in rows], dtype=np.float64).reshape(-1, 4),
            labels_D=np.array([label for _, label, _ in rows], dtype=np.int64),
            scores_D=np.array([score for _, _, score in rows], dtype=np.float64),
        )
        for record in data.records
        for rows in [detections[record.image_id]]
    ]


@dataclass(frozen=True, kw_only=True)
class ImageMatch:
    """Matches of the detections and objects of an image at a score threshold.

    Every shown detection is in exactly one group: it is correct (`correct_D`), probably an object without a label
    (`unlabelled_D`), or false (`false_D`).

    Args:
        matched_G: True for each object with a matching detection, and for crowd regions, which are ignored.
        correct_D: True for each detection with a matching object, and for ignored detections in crowd regions.
        object_D: index of the object that each detection matches, or -1.
        shown_D: True for each detection with a score of at least the threshold.
        unlabelled_D: True for each shown detection that is probably an unlabelled object, see `probably_unlabelled`.
        crowd_G: True for crowd regions.
    """

    matched_G: npt.NDArray[np.bool_] = field(repr=False)
    correct_D: npt.NDArray[np.bool_] = field(repr=False)
    object_D: Ints = field(repr=False)
    shown_D: npt.NDArray[np.bool_] = field(repr=False)
    unlabelled_D: npt.NDArray[np.bool_] = field(repr=False)
    crowd_G: npt.NDArray[np.bool_] = field(repr=False)

    @property
    def objects(self) -> int:
        """Number of objects in the image, without crowd regions."""
        return int((~self.crowd_G).sum())

    @property
    def found(self) -> int:
        """Number of objects with a matching detection."""
        return self.objects - self.missed

    @property
    def missed(self) -> int:
        """Number of objects without a matching detection."""
        return int((~self.matched_G).sum())

    @property
    def false_D(self) -> npt.NDArray[np.bool_]:
        """True for each false detection: shown, without a matching object, and probably not an unlabelled object."""
        false_D: npt.NDArray[np.bool_] = self.shown_D & ~self.correct_D & ~self.unlabelled_D
        return false_D

    @property
    def false(self) -> int:
        """Number of false detections, without those that are probably unlabelled objects."""
        return int(self.false_D.sum())

    @property
    def unlabelled(self) -> int:
        """Number of detections that are probably unlabelled objects."""
        return int(self.unlabelled_D.sum())

    @property
    def f1(self) -> float:
        """F1 = 2 found / (2 found + missed + false); 1 without objects and false detections.

        Probably unlabelled objects do not count. `best_threshold` and `evaluate.best_f1` count these as false, because
        a threshold must depend on the labels alone.
        """
        total = 2 * self.found + self.missed + self.false
        return 2 * self.found / total if total else 1.0


def match_detections(item: ImageResults, threshold: float) -> ImageMatch:
    """Match the detections with a score of at least `threshold` with the objects of an image."""
    partner_D, in_crowd_D = pair_detections(item)
    shown_D = np.asarray(item.scores_D) >= threshold
    crowd_G = crowd_regions(item)
    matched_G = crowd_G.copy()
    matched_G[partner_D[shown_D & (partner_D >= 0)]] = True
    correct_D = (partner_D >= 0) | in_crowd_D
    truth = (item.boxes_G4, item.labels_G, crowd_G)
    unlabelled_D = probably_unlabelled(item.detected_D4, item.detected_labels_D, item.scores_D, *truth)
    unlabelled_D &= shown_D & ~correct_D
    return ImageMatch(
        matched_G=matched_G,
        correct_D=correct_D,
        object_D=partner_D,
        shown_D=shown_D,
        unlabelled_D=unlabelled_D,
        crowd_G=crowd_G,
    )


def probably_unlabelled(
    detected_D4: Floats,
    detected_labels_D: Ints,
    scores_D: Floats,
    boxes_G4: Floats,
    labels_G: Ints,
    crowd_G: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Return whether each detection is probably an object without a label, (D,).

    Such a detection has a score of at least `CONFIDENT`, an IoU below `NEAR` with each object, and is no part of a
    labelled object (`parts_of_objects`).

    Args:
        detected_D4: boxes of the detections.
        detected_labels_D: their class ids.
        scores_D: their scores.
        boxes_G4: ground-truth boxes.
        labels_G: their class ids.
        crowd_G: True for crowd regions. The IoU with a crowd region does not count.
    """
    iou_DG, _ = overlaps(detected_D4, np.asarray(boxes_G4)[~crowd_G])
    alone_D = iou_DG.max(axis=1, initial=0.0) < NEAR
    is_part_D = parts_of_objects(detected_D4, detected_labels_D, boxes_G4, labels_G, crowd_G)
    unlabelled_D: npt.NDArray[np.bool_] = (np.asarray(scores_D) >= CONFIDENT) & alone_D & ~is_part_D
    return unlabelled_D


def parts_of_objects(
    detected_D4: Floats, detected_labels_D: Ints, boxes_G4: Floats, labels_G: Ints, crowd_G: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Return whether each box has more than `PART` of its area in one labelled box of its class, (D,).

    An object of another class does not count: a platelet beside a cell nucleus, or a bowl on a table, lies in the box
    of the larger object and is an object of its own. A crowd region counts for every class.

    Args:
        detected_D4: detected boxes.
        detected_labels_D: their class ids.
        boxes_G4: ground-truth boxes.
        labels_G: their class ids.
        crowd_G: True for crowd regions.
    """
    _, inside_DG = overlaps(detected_D4, boxes_G4)
    counts_DG = (np.asarray(detected_labels_D)[:, None] == np.asarray(labels_G)[None]) | np.asarray(crowd_G)[None]
    parts_D: npt.NDArray[np.bool_] = (inside_DG * counts_DG).max(axis=1, initial=0.0) > PART
    return parts_D


def best_threshold(items: Sequence[ImageResults]) -> float:
    """Return the score threshold out of 0.05, 0.10, ..., 0.95 with the highest F1 over all images.

    Of equally good thresholds, return the one nearest to 0.5. Return 0.5 if no detection is right.
    """
    hits, wrong = [], []
    for item in items:
        partner_D, in_crowd_D = pair_detections(item)
        hits.append(np.asarray(item.scores_D)[partner_D >= 0])
        wrong.append(np.asarray(item.scores_D)[(partner_D < 0) & ~in_crowd_D])
    objects = sum(int((~crowd_regions(item)).sum()) for item in items)
    right, false = np.concatenate([[], *hits]), np.concatenate([[], *wrong])
    best, best_f1 = 0.5, 0.0
    for threshold in sorted((round(0.05 * step, 2) for step in range(1, 20)), key=lambda t: abs(t - 0.5)):
        true_positives, false_positives = (right >= threshold).sum(), (false >= threshold).sum()
        total = objects + true_positives + false_positives
        f1 = 2 * true_positives / total if total else 0.0
        if f1 > best_f1:
            best, best_f1 = threshold, f1
    return best


def crowd_regions(item: ImageResults) -> npt.NDArray[np.bool_]:
    """Return whether each ground-truth box is a crowd region."""
    G = len(item.boxes_G4)
    return np.zeros(G, dtype=bool) if item.crowd_G is None else np.asarray(item.crowd_G, dtype=bool)


def pair_detections(item: ImageResults) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Pair detections with objects of their class at IoU >= `MATCH_IOU`, by descending score, each once.

    A score threshold removes only detections with the lowest scores, so that the other pairs stay the same.

    Returns:
        the index of each detection's object, or -1; True for each unpaired detection in a crowd region of its class.
    """
    crowd_G = crowd_regions(item)
    taken_G = crowd_G.copy()
    partner_D, in_crowd_D = np.full(len(item.detected_D4), -1), np.zeros(len(item.detected_D4), dtype=bool)
    overlap_DG, inside_DG = overlaps(item.detected_D4, item.boxes_G4)
    same_DG = np.asarray(item.detected_labels_D)[:, None] == np.asarray(item.labels_G)[None]
    for d in np.argsort(-np.asarray(item.scores_D), kind="stable"):
        free_G = np.flatnonzero(same_DG[d] & ~taken_G & (overlap_DG[d] >= MATCH_IOU))
        if len(free_G):
            partner_D[d] = free_G[np.argmax(overlap_DG[d, free_G])]
            taken_G[partner_D[d]] = True
        else:
            in_crowd_D[d] = (same_DG[d] & crowd_G & (inside_DG[d] >= MATCH_IOU)).any()
    return partner_D, in_crowd_D


def overlaps(a_D4: Floats, b_G4: Floats) -> tuple[Floats, Floats]:
    """Return the IoU, and the intersection divided by the area of the box in `a_D4`: both (D, G), float64.

    COCO uses the second value for crowd regions. A box whose second corner lies before its first has no area.
    supervision's `box_iou_batch` does not serve: it rounds to float32, so that an IoU just below a threshold may reach
    the threshold, and it lacks the second value.
    """
    a, b = np.asarray(a_D4, dtype=np.float64)[:, None], np.asarray(b_G4, dtype=np.float64)[None]
    sides = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0)
    inner = sides[..., 0] * sides[..., 1]
    area_a, area_b = (np.prod((box[..., 2:] - box[..., :2]).clip(0), axis=-1) for box in (a, b))
    union = area_a + area_b - inner
    area = np.broadcast_to(area_a, inner.shape)
    return inner / np.where(union > 0, union, 1), inner / np.where(area > 0, area, 1)
