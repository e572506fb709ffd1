"""Conversion of detections to COCO results: dictionaries and arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retinanet.evaluate import EvaluationError, evaluate_results
from retinanet.predict.coco_results import detections_to_array, detections_to_coco
from retinanet.types import ImageDetections
from tests.evaluate.block_detector_fake import CATEGORY_IDS, block_detector, made_image


def test_arrays_and_dictionaries_give_equal_metrics() -> None:
    """Dictionaries with Python numbers are converted to an array, those with numpy numbers are checked one by one."""
    torch.manual_seed(0)
    truth = {
        "images": [{"id": i, "width": 100, "height": 100} for i in (3, 8)],
        "categories": [{"id": 2, "name": "a"}, {"id": 7, "name": "b"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 2, "bbox": [10, 10, 30, 30], "area": 900, "iscrowd": 0},
            {"id": 2, "image_id": 8, "category_id": 7, "bbox": [5, 50, 40, 20], "area": 800, "iscrowd": 0},
        ],
    }
    images = [
        (image_id, ImageDetections(boxes_D4=box + torch.randn(9, 4), scores_D=torch.rand(9), labels_D=label).numpy())
        for image_id, box, label in (
            (3, torch.tensor([10.0, 10, 40, 40]), torch.randint(0, 2, (9,))),
            (8, torch.tensor([5.0, 50, 45, 70]), torch.randint(0, 3, (9,))),
        )
    ]
    array_D7 = detections_to_array(images, category_ids=(2, 7, -1))
    rows = [
        row
        for image_id, detections in images
        for row in detections_to_coco(detections, image_id=image_id, category_ids=(2, 7, -1))
        if row["category_id"] != -1
    ]
    assert [[r["image_id"], *r["bbox"], r["score"], r["category_id"]] for r in rows] == array_D7.tolist()
    numpy_rows = [{**row, "score": np.float32(row["score"]), "image_id": np.int64(row["image_id"])} for row in rows]
    expected = evaluate_results(truth, rows)
    assert expected.AP > 0.1
    assert evaluate_results(truth, array_D7) == evaluate_results(truth, numpy_rows) == expected
    array_D7[4, 3] = -1
    with pytest.raises(EvaluationError, match=r"1 of .*\n.*entry 4: bbox must have width"):
        evaluate_results(truth, array_D7)
    assert detections_to_array([], category_ids=(1,)).shape == (0, 7)


def test_detections_to_coco() -> None:
    detections = block_detector().predict(made_image((200, 100), {2: (20, 40, 60, 80)}))
    (row,) = detections_to_coco(detections, image_id=9, category_ids=CATEGORY_IDS)
    assert (row["image_id"], row["category_id"]) == (9, 90)
    assert row["bbox"] == pytest.approx([20, 40, 40, 40], abs=2)
    assert all(type(value) is float for value in (*row["bbox"], row["score"]))
