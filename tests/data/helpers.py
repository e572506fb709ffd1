"""Helper functions of the tests of `retinanet.data` and its commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from retinanet.data import DetectionData, Record
from retinanet.data.transforms import Scene


def names(data: DetectionData) -> set[str]:
    """Return the file stems of a dataset's images."""
    return {record.path.stem for record in data.records}


def noise_scene(size: tuple[int, int], objects: list[list[float]], *, seed: int = 0) -> Scene:
    """Return a noise image with objects of the classes 0, 1, 2, ..."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    count = len(objects)
    return Scene(
        image=Image.fromarray(pixels),
        boxes_G4=torch.tensor(objects, dtype=torch.float64).reshape(count, 4),
        labels_G=torch.arange(count),
        crowd_G=torch.zeros(count, dtype=torch.bool),
    )


def noise_dataset(folder: Path, labels: list[list[int]], *, size: tuple[int, int] = (64, 48)) -> DetectionData:
    """Return a dataset with an image for each list of class ids. Its objects are 10 x 12 pixels, in a row."""
    records = []
    folder.mkdir(exist_ok=True)
    for i, image_labels in enumerate(labels):
        left = 2.0 + 12 * np.arange(len(image_labels))
        top = np.full(len(left), 3.0)
        path = folder / f"{i}.png"
        noise_scene(size, [], seed=i).image.save(path)
        records.append(
            Record(
                path=path,
                width=size[0],
                height=size[1],
                boxes_G4=np.stack([left, top, left + 10, top + 12], axis=1),
                labels_G=np.array(image_labels, np.int64),
                crowd_G=np.zeros(len(image_labels), np.bool_),
                areas_G=np.full(len(image_labels), 120.0),
                annotation_ids=tuple(range(len(image_labels))),
                image_id=i + 1,
            )
        )
    classes = tuple("abc")
    return DetectionData(records=tuple(records), classes=classes, category_ids=(1, 2, 3), source=folder)
