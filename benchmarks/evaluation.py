"""Measure the COCO evaluation of 5,000 images with 100 detections each, in comparison with hotcoco alone."""

from __future__ import annotations

import argparse
from typing import Any

import hotcoco
import numpy as np
import torch
from harness import Section, interleave, write

from retinanet.evaluate import evaluate_results
from retinanet.predict.coco_results import detections_to_array, detections_to_coco
from retinanet.types import ImageDetections

CLASSES, OBJECTS = 80, 7


def random_dataset(images: int, detections: int) -> tuple[dict[str, Any], list[tuple[int, ImageDetections]]]:
    """Return random COCO ground truth, and detections: the objects, shifted by 6 pixels (standard deviation)."""
    rng = np.random.default_rng(0)
    xy, wh = rng.uniform(0, 400, (images, OBJECTS, 2)), rng.uniform(8, 200, (images, OBJECTS, 2))
    labels = rng.integers(0, CLASSES, (images, OBJECTS))
    annotations = [
        {
            "id": i * OBJECTS + g + 1,
            "image_id": i + 1,
            "category_id": int(labels[i, g]) + 1,
            "bbox": [*xy[i, g].tolist(), *wh[i, g].tolist()],
            "area": float(wh[i, g].prod()),
            "iscrowd": 0,
        }
        for i in range(images)
        for g in range(OBJECTS)
    ]
    truth = {
        "images": [{"id": i + 1, "width": 640, "height": 640} for i in range(images)],
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(CLASSES)],
        "annotations": annotations,
    }
    detections_per_image = []
    for i in range(images):
        source = rng.integers(0, OBJECTS, detections)
        low = xy[i, source] + rng.normal(0, 6, (detections, 2))
        high = low + (wh[i, source] + rng.normal(0, 6, (detections, 2))).clip(1)
        detections_per_image.append(
            (
                i + 1,
                ImageDetections(
                    boxes_D4=torch.from_numpy(np.concatenate([low, high], 1)).float(),
                    scores_D=torch.from_numpy(np.sort(rng.uniform(0.05, 1, detections))[::-1].copy()).float(),
                    labels_D=torch.from_numpy(labels[i, source]),
                ),
            )
        )
    return truth, detections_per_image


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000, help="number of images")
    parser.add_argument("--detections", type=int, default=100, help="number of detections per image")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
    args = parser.parse_args()
    truth, detections = random_dataset(args.images, args.detections)
    ids = range(1, CLASSES + 1)
    rows = [row for i, d in detections for row in detections_to_coco(d, image_id=i, category_ids=ids)]

    def hotcoco_alone() -> object:
        coco = hotcoco.COCO(truth)
        run = hotcoco.COCOeval(coco, coco.load_res(rows), "bbox")
        run.evaluate(), run.accumulate(), run.summary_lines()
        return run.get_results()

    seconds = interleave(
        {
            "hotcoco, from dictionaries": hotcoco_alone,
            "ours, from dictionaries": lambda: evaluate_results(truth, rows),
            "ours, from ImageDetections": lambda: evaluate_results(
                truth, detections_to_array(detections, category_ids=ids)
            ),
        },
        rounds=args.rounds,
    )
    title = f"{args.images:,} images x {args.detections} detections"
    write("evaluation", "COCO evaluation, all 12 numbers", [Section(title, seconds)])


if __name__ == "__main__":
    main()
