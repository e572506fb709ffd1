"""Notes about images with more objects than AP counts."""

from __future__ import annotations

import pytest

from retinanet.evaluate import evaluate_results
from retinanet.evaluate.detection_limit import crowded_images, highest_ap, limit_notes
from tests.analysis.datasets import dataset_from_boxes


def test_the_highest_ap_is_that_of_perfect_detections() -> None:
    grid = [(0, 12 * (i % 30), 12 * (i // 30), 12 * (i % 30) + 10, 12 * (i // 30) + 10) for i in range(150)]
    data = dataset_from_boxes([grid, [(0, 0, 0, 50, 50), (1, 60, 60, 90, 90)]])
    truth = data.to_coco()
    results = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in truth["annotations"]
    ]
    for limit in (1, 10, 100, 149, 150):
        assert highest_ap(data, limit) == pytest.approx(evaluate_results(truth, results, max_detections=limit).AP)
    assert [(c.class_name, c.objects) for c in crowded_images(data, 100)] == [("a", 150)]
    (note,) = limit_notes(data, 100)
    assert "1 image has more than 100 objects of a class (0.png: 150 of a)" in note
    assert f"AP cannot exceed {highest_ap(data, 100):.3f}: use --max-detections 150" in note
    assert limit_notes(data, 150) == []
    assert ["at most 149 detections per image" in n for n in limit_notes(data, 150, 149)] == [True]
