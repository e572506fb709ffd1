"""Helper functions of the tests of `retinanet.data` and its commands."""

from __future__ import annotations

from retinanet.data import DetectionData


def names(data: DetectionData) -> set[str]:
    """Return the file stems of a dataset's images."""
    return {record.path.stem for record in data.records}
