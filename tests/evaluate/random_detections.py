"""Random ground truth and detections in COCO format: objects, crowd regions, duplicates, misses, equal scores."""

from __future__ import annotations

from typing import Any

import numpy as np

Truth = dict[str, Any]
Rows = list[dict[str, Any]]


def random_case(
    rng: np.random.Generator, *, images: int = 4, classes: int = 3, crowd: float = 0.2
) -> tuple[Truth, Rows]:
    """Return a ground truth and detections. Boxes have whole numbers, so that many IoUs and scores are equal."""
    annotations: Rows = []
    results: Rows = []
    categories = sorted(rng.choice(np.arange(1, 50), classes, replace=False).tolist())
    ids = sorted(rng.choice(1000, images, replace=False).tolist())
    for image_id in ids:
        for _ in range(rng.integers(0, 6)):
            category_id = int(rng.choice(categories))
            box = [*rng.integers(0, 40, 2).tolist(), *rng.integers(5, 120, 2).tolist()]
            row = {"image_id": image_id, "category_id": category_id, "bbox": box, "area": box[2] * box[3]}
            annotations.append({**row, "id": len(annotations) + 1, "iscrowd": int(rng.random() < crowd)})
            for _ in range(rng.integers(0, 3)):
                moved = [*(np.array(box[:2]) + rng.integers(-6, 7, 2)).tolist(), *box[2:]]
                label = category_id if rng.random() < 0.8 else int(rng.choice(categories))
                results.append(result(image_id, label, moved, rng))
        for _ in range(rng.integers(0, 3)):
            box = [*rng.integers(0, 40, 2).tolist(), *rng.integers(5, 60, 2).tolist()]
            results.append(result(image_id, int(rng.choice(categories)), box, rng))
    truth = {
        "images": [{"id": image_id, "width": 200, "height": 200} for image_id in ids],
        "categories": [{"id": i, "name": f"class {i}"} for i in categories],
        "annotations": annotations,
    }
    return truth, results


def result(image_id: int, category_id: int, box: list[int], rng: np.random.Generator) -> dict[str, Any]:
    score = round(float(rng.random()), 1 if rng.random() < 0.3 else 6)  # some equal scores
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}


def iou(a: list[float], b: list[float]) -> float:
    """Return the IoU of two xywh boxes."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inner = max(width, 0) * max(height, 0)
    return inner / (a[2] * a[3] + b[2] * b[3] - inner)
