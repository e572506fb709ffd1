"""COCO ground truth and detections of one image with cats and dogs."""

from __future__ import annotations

from typing import Any

CAT, DOG, COW = 3, 7, 90


def ground_truth(*objects: tuple[int, list[float], int]) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}, {"id": COW, "name": "cow"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for i, (c, box, crowd) in enumerate(objects, start=1)
        ],
    }


def detection(category: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": 1, "category_id": category, "bbox": box, "score": score}
