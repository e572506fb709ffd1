"""Detections of single images against ground truth: what was found, missed and wrong, and the best threshold.

Boxes are xyxy, original pixels. Shape suffixes: G ground-truth boxes, D detections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.formats.records import DetectionData

    Floats = npt.NDArray[np.floating]
    Ints = npt.NDArray[np.integer]

MATCH_IOU: Final = 0.5
"""IoU from which a detection belongs to an object of its class."""

Group = Literal["best", "worst", "random"]


@dataclass(frozen=True, kw_only=True)
class ImageResults:
    """An image with what is on it and what was found.

    Args:
        name: shown below it.
        image: the image, or its path.
        boxes_G4: the objects; labels_G: their class ids; crowd_G: true for regions of many (none by default).
        found_D4: the detections; found_labels_D and scores_D: their class ids and scores.
        group: why it is shown.
    """

    name: str
    image: Image.Image | Path
    boxes_G4: Floats
    labels_G: Ints
    found_D4: Floats
    found_labels_D: Ints
    scores_D: Floats
    crowd_G: npt.NDArray[np.bool_] | None = None
    group: Group | None = None

    def __post_init__(self) -> None:
        G, D = len(self.boxes_G4), len(self.found_D4)
        shapes = {"boxes_G4": (G, 4), "labels_G": (G,), "found_D4": (D, 4), "found_labels_D": (D,), "scores_D": (D,)}
        for name, shape in shapes.items() if self.crowd_G is None else [*shapes.items(), ("crowd_G", (G,))]:
            found = np.shape(getattr(self, name))
            if found != shape:
                raise ValueError(f"{self.name}: {name} needs the shape {shape}, found {found}")


def items_from_results(data: DetectionData, results: Iterable[Mapping[str, Any]]) -> list[ImageResults]:
    """Return every image of `data` with its detections out of COCO results (image_id, category_id, bbox, score).

    Raises:
        ValueError: a result of an image or category that `data` does not have.
    """
    label_of = {category_id: label for label, category_id in enumerate(data.category_ids)}
    found: dict[int, list[tuple[list[float], int, float]]] = {record.image_id: [] for record in data.records}
    for row in results:
        if row["image_id"] not in found or row["category_id"] not in label_of:
            raise ValueError(f"expected images and categories of {data.source}, found the result {dict(row)}")
        x, y, w, h = row["bbox"]
        found[row["image_id"]].append(([x, y, x + w, y + h], label_of[row["category_id"]], row["score"]))
    return [
        ImageResults(
            name=record.path.name,
            image=record.path,
            boxes_G4=record.boxes_G4,
            labels_G=record.labels_G,
            crowd_G=record.crowd_G,
            found_D4=np.array([box for box, _, _ in rows], dtype=np.float64).reshape(-1, 4),
            found_labels_D=np.array([label for _, label, _ in rows], dtype=np.int64),
            scores_D=np.array([score for _, _, score in rows], dtype=np.float64),
        )
        for record in data.records
        for rows in [found[record.image_id]]
    ]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is right about an image: `found_G` and `right_D` say of each object and detection whether it has a partner.

    Args:
        found_G: bool; crowd regions, which need not be found, count as found.
        right_D: bool; detections in crowd regions, which may be there, count as right.
        shown_D: bool, detections with a score of at least the threshold.
        crowd_G: bool.
    """

    found_G: npt.NDArray[np.bool_] = field(repr=False)
    right_D: npt.NDArray[np.bool_] = field(repr=False)
    shown_D: npt.NDArray[np.bool_] = field(repr=False)
    crowd_G: npt.NDArray[np.bool_] = field(repr=False)

    @property
    def objects(self) -> int:
        """Objects on the image."""
        return int((~self.crowd_G).sum())

    @property
    def missed(self) -> int:
        """Objects without a detection of their class at IoU `MATCH_IOU`."""
        return int((~self.found_G).sum())

    @property
    def false(self) -> int:
        """Detections without an object."""
        return int((self.shown_D & ~self.right_D).sum())

    @property
    def f1(self) -> float:
        """2 hits / (2 hits + missed + false); 1 where there is nothing and nothing was found."""
        hits = self.objects - self.missed
        total = 2 * hits + self.missed + self.false
        return 2 * hits / total if total else 1.0


def judge(item: ImageResults, threshold: float) -> Verdict:
    """Judge the detections with a score of at least `threshold`."""
    partner_D, in_crowd_D = _pair(item)
    shown_D = np.asarray(item.scores_D) >= threshold
    crowd_G = _crowd(item)
    found_G = crowd_G.copy()
    found_G[partner_D[shown_D & (partner_D >= 0)]] = True
    return Verdict(found_G=found_G, right_D=(partner_D >= 0) | in_crowd_D, shown_D=shown_D, crowd_G=crowd_G)


def best_threshold(items: Sequence[ImageResults]) -> float:
    """Return the score, out of 0.05, 0.10, ..., 0.95, from which on the detections have the highest F1 of all.

    0.5 where no detection is right. Of equals the one nearest to 0.5.
    """
    hits, wrong = [], []
    for item in items:
        partner_D, in_crowd_D = _pair(item)
        hits.append(np.asarray(item.scores_D)[partner_D >= 0])
        wrong.append(np.asarray(item.scores_D)[(partner_D < 0) & ~in_crowd_D])
    objects = sum(int((~_crowd(item)).sum()) for item in items)
    right, false = np.concatenate([[], *hits]), np.concatenate([[], *wrong])
    best, best_f1 = 0.5, 0.0
    for threshold in sorted((round(0.05 * step, 2) for step in range(1, 20)), key=lambda t: abs(t - 0.5)):
        found, shown = (right >= threshold).sum(), (right >= threshold).sum() + (false >= threshold).sum()
        f1 = 2 * found / (objects + shown) if objects + shown else 0.0
        if f1 > best_f1:
            best, best_f1 = threshold, f1
    return best


def _crowd(item: ImageResults) -> npt.NDArray[np.bool_]:
    G = len(item.boxes_G4)
    return np.zeros(G, dtype=bool) if item.crowd_G is None else np.asarray(item.crowd_G, dtype=bool)


def _pair(item: ImageResults) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Pair detections with objects of their class at IoU >= `MATCH_IOU`, the best score first, each once.

    A threshold leaves out the last ones of that order, so the pairs of the others hold for every threshold.

    Returns:
        the index of each detection's object, or -1; whether it has none, but lies in a crowd region of its class.
    """
    crowd_G = _crowd(item)
    taken_G = crowd_G.copy()
    partner_D, in_crowd_D = np.full(len(item.found_D4), -1), np.zeros(len(item.found_D4), dtype=bool)
    overlap_DG, inside_DG = overlaps(item.found_D4, item.boxes_G4)
    same_DG = np.asarray(item.found_labels_D)[:, None] == np.asarray(item.labels_G)[None]
    for d in np.argsort(-np.asarray(item.scores_D), kind="stable"):
        free_G = np.flatnonzero(same_DG[d] & ~taken_G & (overlap_DG[d] >= MATCH_IOU))
        if len(free_G):
            partner_D[d] = free_G[np.argmax(overlap_DG[d, free_G])]
            taken_G[partner_D[d]] = True
        else:
            in_crowd_D[d] = (same_DG[d] & crowd_G & (inside_DG[d] >= MATCH_IOU)).any()
    return partner_D, in_crowd_D


def overlaps(a_D4: Floats, b_G4: Floats) -> tuple[Floats, Floats]:
    """Return IoU, and intersection as a share of a's area (what COCO takes for crowds): both (D, G), float64.

    supervision's `box_iou_batch` rounds to float32, so that an IoU just below a threshold may reach it, and has no
    share of one box. A box whose second corner lies before its first has no area.
    """
    a, b = np.asarray(a_D4, dtype=np.float64)[:, None], np.asarray(b_G4, dtype=np.float64)[None]
    sides = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0)
    inner = sides[..., 0] * sides[..., 1]
    area_a, area_b = (np.prod((box[..., 2:] - box[..., :2]).clip(0), axis=-1) for box in (a, b))
    union = area_a + area_b - inner
    area = np.broadcast_to(area_a, inner.shape)
    return inner / np.where(union > 0, union, 1), inner / np.where(area > 0, area, 1)
