"""A dataset of many small images, and the names of its images."""

from __future__ import annotations

from retinanet.data import DetectionData


def names(found: DetectionData) -> set[str]:
    return {record.path.stem for record in found.records}
