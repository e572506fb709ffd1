"""The limit of detections that AP counts: images with more objects lower the AP of a perfect detector."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from retinanet.data import DetectionData, Record

SHOWN = 3
"""Number of images that a note names."""


class Crowded(NamedTuple):
    """An image with more objects of a class than AP counts."""

    record: Record
    class_name: str
    objects: int
    """Number of objects of the class in the image, without crowd regions."""


def crowded_images(data: DetectionData, limit: int) -> list[Crowded]:
    """Return each image and class with more than `limit` objects, the most objects first."""
    found = [
        Crowded(record, data.classes[k], int(n))
        for record, counts_K in zip(data.records, _counts(data), strict=True)
        for k, n in enumerate(counts_K)
        if n > limit
    ]
    return sorted(found, key=lambda crowded: -crowded.objects)


def highest_ap(data: DetectionData, limit: int) -> float:
    """Return the AP of perfect detections if AP counts `limit` detections per image and class.

    A class with recall R reaches the share of COCO's 101 recall levels (0, 0.01, ..., 1) up to R. Classes without
    objects do not count.
    """
    counts_PK = np.array(_counts(data))
    objects_K = counts_PK.sum(axis=0)
    recall_K = np.minimum(counts_PK, limit).sum(axis=0)[objects_K > 0] / objects_K[objects_K > 0]
    levels_R = np.linspace(0, 1, 101)
    return float((levels_R[None] <= recall_K[:, None]).mean()) if len(recall_K) else 1.0


def limit_notes(data: DetectionData, limit: int, model_limit: int | None = None) -> list[str]:
    """Return notes about images with more objects than the metrics count, or than the model detects.

    Args:
        data: ground truth.
        limit: number of detections per image and class that AP counts.
        model_limit: greatest number of detections per image of the model; None for a file of results.
    """
    notes = []
    if crowded := crowded_images(data, limit):
        images = len({id(c.record) for c in crowded})
        notes.append(
            f"{images:,} {'image has' if images == 1 else 'images have'} more than {limit} objects of a class "
            f"({describe(crowded)}). AP and AR count at most {limit} detections per image and class, so that AP cannot "
            f"exceed {highest_ap(data, limit):.3f}: use --max-detections {crowded[0].objects}"
        )
    most = max((int((~record.crowd_G).sum()) for record in data.records), default=0)
    if model_limit is not None and most > model_limit:
        notes.append(
            f"the model returns at most {model_limit} detections per image, and an image has {most:,} objects: "
            f"use --max-detections {most}"
        )
    return notes


def describe(crowded: list[Crowded]) -> str:
    """Return the first images with their class and number of objects."""
    more = ", ..." if len(crowded) > SHOWN else ""
    return ", ".join(f"{c.record.path.name}: {c.objects:,} of {c.class_name}" for c in crowded[:SHOWN]) + more


def _counts(data: DetectionData) -> list[np.ndarray]:
    """Return the number of objects of each class in each image, without crowd regions."""
    K = len(data.classes)
    return [np.bincount(record.labels_G[~record.crowd_G], minlength=K) for record in data.records]
