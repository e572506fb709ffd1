"""Round the boxes of detections as the API does."""

from __future__ import annotations

from typing import Any


def rounded(detections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the detections with box coordinates rounded to two decimals."""
    return [{**detection, "box": [round(value, 2) for value in detection["box"]]} for detection in detections]
