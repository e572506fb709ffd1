"""Datasets without image files, for tests that need no pixels."""

from pathlib import Path

import numpy as np

from retinanet.data import DetectionData
from retinanet.formats.records import Record


def dataset_from_boxes(images, *, classes=("a", "b"), size=(512, 384), folder=Path("nowhere")):
    """Return a dataset; each image is a list of (class id, x1, y1, x2, y2[, crowd])."""
    records = []
    for number, objects in enumerate(images):
        boxes = np.array([o[1:5] for o in objects], dtype=np.float64).reshape(-1, 4)
        records.append(
            Record(
                path=folder / f"{number}.png",
                width=size[0],
                height=size[1],
                boxes_G4=boxes,
                labels_G=np.array([o[0] for o in objects], dtype=np.int64),
                crowd_G=np.array([len(o) > 5 and o[5] for o in objects], dtype=bool),
                areas_G=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
                annotation_ids=tuple(range(1, len(objects) + 1)),
                image_id=number + 1,
            )
        )
    return DetectionData(
        records=tuple(records),
        classes=tuple(classes),
        category_ids=tuple(range(1, len(classes) + 1)),
        source=Path("made.json"),
    )


def random_dataset(count, *, seed=0, sides=(20, 200), ratio=(0.5, 2.0), classes=2, images=40, size=(512, 384)):
    """Return a dataset of `count` boxes with random position, size, shape and class."""
    rng = np.random.default_rng(seed)
    rows = [[] for _ in range(images)]
    for i in range(count):
        side = np.exp(rng.uniform(*np.log(sides)))
        root = np.exp(rng.uniform(*np.log(ratio)) / 2)
        w, h = min(side / root, size[0] - 1), min(side * root, size[1] - 1)
        x, y = rng.uniform(0, size[0] - w), rng.uniform(0, size[1] - h)
        rows[i % images].append((int(rng.integers(classes)), x, y, x + w, y + h))
    return dataset_from_boxes(rows, classes=[f"c{k}" for k in range(classes)], size=size)
