"""Ground truth and results in COCO format, for tests that change single fields."""

from __future__ import annotations

from typing import Any

BOX = [10.0, 10.0, 40.0, 30.0]


def ground_truth(**changes: Any) -> dict[str, Any]:
    """Return two images, two categories with a gap between their ids, and one object."""
    truth = {
        "images": [{"id": 1, "width": 100, "height": 100}, {"id": 5, "width": 100, "height": 100}],
        "categories": [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": BOX, "area": 1200, "iscrowd": 0}],
    }
    return {**truth, **changes}


def result(**changes: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 7, "bbox": BOX, "score": 0.9, **changes}
