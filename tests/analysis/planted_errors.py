"""Images with one error whose cause is known: objects, dense predictions and anchors, made by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retinanet.analysis.anchor_matches import AnchorMatches
from retinanet.analysis.image_errors import ImageErrors
from retinanet.config import PostprocessConfig
from retinanet.data import DetectionData, Record
from retinanet.predict.trace import FlatOutputs, Trace

K, SIDE = 3, 600
HIDDEN = 0.01
"""Score of predictions that are no candidates."""


Row = tuple[np.ndarray, int, float]
"""Box, class id and score of a prediction."""


@dataclass(frozen=True, kw_only=True)
class Planted:
    """An image, what the network predicts, and the options that lead to one error."""

    boxes_G4: np.ndarray
    labels_G: np.ndarray
    rows: list[Row]
    """Predictions of the finest level; one more level holds hidden predictions only."""
    anchor_iou: float = 0.7
    positive: bool = True
    config: PostprocessConfig = dataclasses.field(default_factory=PostprocessConfig)
    threshold: float = 0.5

    def record(self, number: int = 0) -> Record:
        sides = self.boxes_G4[:, 2:] - self.boxes_G4[:, :2]
        return Record(
            path=Path(f"{number}.png"),
            width=SIDE,
            height=SIDE,
            boxes_G4=self.boxes_G4.astype(np.float64),
            labels_G=self.labels_G.astype(np.int64),
            crowd_G=np.zeros(len(self.labels_G), bool),
            areas_G=sides.prod(axis=1).astype(np.float64),
            annotation_ids=tuple(100 * number + g for g in range(1, len(self.labels_G) + 1)),
            image_id=number,
        )

    def errors(self, number: int = 0) -> ImageErrors:
        """Return the errors. The first object is the one with the planted miss; each object has one anchor."""
        hidden = np.array([[0, 0, 40, 40]] * 3, np.float32)
        boxes_A4 = np.concatenate([np.array([box for box, _, _ in self.rows], np.float32).reshape(-1, 4), hidden])
        scores_AK = np.full((len(boxes_A4), K), HIDDEN, np.float32)
        for a, (_, label, score) in enumerate(self.rows):
            scores_AK[a, label] = score
        flat = FlatOutputs(scores_AK, boxes_A4, boxes_A4, (0, len(self.rows), len(boxes_A4)))
        G, A = len(self.labels_G), len(boxes_A4)
        iou_AG, object_A = np.full((A, G), 0.1, np.float32), np.full(A, -1)
        for g in range(G):  # the last anchors belong to the objects
            iou_AG[A - 1 - g, g] = self.anchor_iou if g == 0 else 0.8
            object_A[A - 1 - g] = g
        if not self.positive:
            object_A[A - 1] = 1 if self.anchor_iou >= 0.5 and G > 1 else -1
        return ImageErrors(
            number=number,
            record=self.record(number),
            trace=Trace(flat, self.config),
            anchors=AnchorMatches(object_A=object_A, iou_AG=iou_AG, positive_iou=0.5, negative_iou=0.4),
            levels=(3, 4),
            threshold=self.threshold,
        )

    def changed(self, **values: object) -> Planted:
        return dataclasses.replace(self, **values)  # type: ignore[arg-type]


def dataset(planted: list[Planted]) -> DetectionData:
    return DetectionData(
        records=tuple(p.record(number) for number, p in enumerate(planted, 1)),
        classes=("a", "b", "c"),
        category_ids=(1, 2, 3),
        source=Path("planted"),
    )


def shifted(box_4: np.ndarray, share: float) -> np.ndarray:
    """Return a box moved to the right by a share of its width. Its IoU with the box is (1 - share) / (1 + share)."""
    return box_4 + np.array([1, 0, 1, 0]) * share * (box_4[2] - box_4[0])


@dataclass(frozen=True)
class Scene:
    """Two objects far from each other, of different classes, and places without objects."""

    rng: np.random.Generator

    def box(self, column: int, row: int) -> np.ndarray:
        """Return a box of 60 to 90 pixels in a cell of 200 pixels."""
        x, y = 200 * column + self.rng.uniform(20, 60), 200 * row + self.rng.uniform(20, 60)
        return np.array([x, y, x + self.rng.uniform(60, 90), y + self.rng.uniform(60, 90)])

    def label(self) -> int:
        return int(self.rng.integers(K))

    def others(self, count: int) -> list[Row]:
        """Return detections without an object."""
        boxes = [self.box(i % 3, 1 + i // 3) for i in range(count)]
        return [(box, self.label(), float(self.rng.uniform(0.85, 0.95))) for box in boxes]


Mend = Callable[[Planted], Planted]


def plant(cause: str, rng: np.random.Generator) -> tuple[Planted, Mend]:
    """Return an image with an error of this cause, and the function that really mends it."""
    scene = Scene(rng)
    missed, found, label, other = scene.box(0, 0), scene.box(2, 0), scene.label(), scene.label()
    wrong = (label + 1 + int(rng.integers(K - 1))) % K
    right = (found, other, float(rng.uniform(0.8, 0.95)))
    base = Planted(boxes_G4=np.stack([missed, found]), labels_G=np.array([label, other]), rows=[right])
    if cause in {"suppressed", "not a candidate", "beyond max_detections", "below the threshold"}:
        return plant_in_postprocessing(cause, base, scene)
    if cause in {"no anchor", "anchors ignored", "anchors taken", "low scores"}:
        return plant_in_network(cause, base, scene)
    return plant_false(cause, base, scene, wrong)


def plant_in_postprocessing(cause: str, base: Planted, scene: Scene) -> tuple[Planted, Mend]:
    missed, label, rng = base.boxes_G4[0], int(base.labels_G[0]), scene.rng
    fitting, score = shifted(missed, rng.uniform(0, 0.2)), float(rng.uniform(0.6, 0.75))
    if cause == "suppressed":  # a neighbour of the same class, IoU 0.6 with the object
        neighbour = shifted(missed, 0.25)
        rows = [*base.rows, (neighbour, label, 0.9), (missed, label, score)]
        objects = np.concatenate([base.boxes_G4, neighbour[None]])
        planted = base.changed(boxes_G4=objects, labels_G=np.append(base.labels_G, label), rows=rows)
        return planted, lambda p: p.changed(config=PostprocessConfig(nms_threshold=0.62))
    if cause == "below the threshold":
        rows = [*base.rows, (fitting, label, float(rng.uniform(0.1, 0.45)))]
        return base.changed(rows=rows), lambda p: p.changed(threshold=0.05)
    limit = {"candidates_per_level": 6} if cause == "not a candidate" else {"max_detections": 6}
    rows = [*base.rows, *scene.others(5), (fitting, label, score)]
    return base.changed(rows=rows, config=PostprocessConfig(**limit)), lambda p: p.changed(config=PostprocessConfig())


def plant_in_network(cause: str, base: Planted, scene: Scene) -> tuple[Planted, Mend]:
    def without_first(p: Planted) -> Planted:
        return p.changed(boxes_G4=p.boxes_G4[1:], labels_G=p.labels_G[1:])

    rng = scene.rng
    if cause == "low scores":
        fitting = shifted(base.boxes_G4[0], rng.uniform(0, 0.2))
        rows = [*base.rows, (fitting, int(base.labels_G[0]), float(rng.uniform(0.005, 0.045)))]
        return base.changed(rows=rows), without_first
    low, high = {"no anchor": (0, 0.39), "anchors ignored": (0.41, 0.49), "anchors taken": (0.51, 0.9)}[cause]
    return base.changed(anchor_iou=float(rng.uniform(low, high)), positive=False), without_first


def plant_false(cause: str, base: Planted, scene: Scene, wrong: int) -> tuple[Planted, Mend]:
    missed, label, rng, right = base.boxes_G4[0], int(base.labels_G[0]), scene.rng, base.rows[0]
    fitting, score = shifted(missed, rng.uniform(0, 0.2)), float(rng.uniform(0.6, 0.75))
    distant, place = shifted(missed, rng.uniform(0.45, 0.7)), scene.box(1, 2)
    complete: list[Row] = [(missed, label, 0.9), right]

    def label_it(p: Planted) -> Planted:
        boxes_G4 = np.concatenate([p.boxes_G4, place[None].astype(np.float32)])
        return p.changed(boxes_G4=boxes_G4, labels_G=np.append(p.labels_G, label))

    def with_last(row: Row) -> Mend:
        return lambda p: p.changed(rows=[*p.rows[:-1], row])

    def without_last(p: Planted) -> Planted:
        return p.changed(rows=p.rows[:-1])

    planted: dict[str, tuple[list[Row], Mend]] = {
        "wrong class": ([right, (fitting, wrong, score)], lambda p: p.changed(rows=[right, (fitting, label, score)])),
        "badly localised": (
            [right, (distant, label, score)],
            lambda p: p.changed(rows=[right, (missed, label, score)]),
        ),
        "duplicate": ([(shifted(missed, -0.2), label, 0.9), right, (shifted(missed, 0.2), label, score)], without_last),
        "wrong class and place": ([*complete, (distant, wrong, score)], without_last),
        "unlabelled?": ([*complete, (place, label, score)], label_it),
        "background": ([*complete, (place, label, float(rng.uniform(0.35, 0.49)))], without_last),
    }
    rows, mend = planted[cause]
    return base.changed(rows=rows, threshold=0.3 if cause == "background" else 0.5), mend
