"""The threshold with the highest F1: hand-worked numbers, and a search over all thresholds with loops."""

from __future__ import annotations

import hotcoco
import numpy as np
import pytest

from retinanet.evaluate.best_f1 import best_f1_metrics
from tests.evaluate.cats_and_dogs import CAT, DOG, detection, ground_truth
from tests.evaluate.random_detections import random_case

A, B, AWAY = [0.0, 0, 10, 10], [50.0, 0, 10, 10], [80.0, 80, 10, 10]


def test_hand_worked_numbers() -> None:
    """Cats: two objects, scores 0.9 right, 0.31 right, 0.2 wrong: at 0.31, F1 is 1. Dogs: one object, 0.7 wrong, 0.6
    right: at 0.6, precision 1/2, recall 1, F1 2/3. Together at 0.31: 3 right of 4, recall 1, F1 6/7."""
    truth = ground_truth((CAT, A, 0), (CAT, B, 0), (DOG, A, 0))
    cats = [detection(CAT, A, 0.9), detection(CAT, B, 0.31), detection(CAT, AWAY, 0.2)]
    found = best_f1_metrics(truth, [*cats, detection(DOG, AWAY, 0.7), detection(DOG, A, 0.6)])
    cat, dog = found.per_class["cat"], found.per_class["dog"]
    assert (cat.threshold, cat.F1, cat.precision, cat.recall, cat.objects) == (0.31, 1, 1, 1, 2)
    assert (dog.threshold, dog.precision, dog.recall) == (0.6, 0.5, 1)
    assert pytest.approx(2 / 3) == dog.F1
    assert (found.threshold, found.precision, found.recall, found.objects) == (0.31, 0.75, 1, 3)
    assert pytest.approx(6 / 7) == found.F1
    assert (found.per_class["cow"].threshold, found.per_class["cow"].F1) == (None, -1)


def test_a_threshold_counts_all_detections_with_equal_scores() -> None:
    truth = ground_truth((CAT, A, 0))
    found = best_f1_metrics(truth, [detection(CAT, A, 0.5), detection(CAT, AWAY, 0.5), detection(CAT, AWAY, 0.5)])
    assert (found.threshold, found.precision, found.F1) == (0.5, pytest.approx(1 / 3), 0.5)


def test_detections_in_crowd_regions_are_ignored() -> None:
    truth = ground_truth((CAT, A, 1), (CAT, B, 0))
    assert best_f1_metrics(truth, [detection(CAT, A, 0.9), detection(CAT, B, 0.5)]).precision == 1


@pytest.mark.parametrize("rows", [[], [detection(CAT, AWAY, 0.9)]])
def test_nothing_found(rows: list[dict[str, object]]) -> None:
    found = best_f1_metrics(ground_truth((CAT, A, 0)), rows)
    assert (found.threshold, found.F1, found.recall) == (None, 0, 0)


def test_random_cases_equal_a_search_over_all_thresholds() -> None:
    """For each threshold, hotcoco matches the detections with at least this score anew."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        truth, results = random_case(rng)
        coco = hotcoco.COCO(truth)
        best = 0.0
        for threshold in sorted({row["score"] for row in results}):
            rows = [row for row in results if row["score"] >= threshold]
            run = hotcoco.COCOeval(coco, coco.load_res(rows), "bbox")
            run.params.iou_thrs, run.params.max_dets = [0.5], [1000]
            run.evaluate()
            right = wrong = 0
            for found in run.eval_imgs:
                if found is not None and found["aRng"] == run.params.area_rng[0]:
                    counted = ~np.array(found["dtIgnore"][0], bool)
                    right += int(np.array(found["dtMatched"][0], bool)[counted].sum())
                    wrong += int((~np.array(found["dtMatched"][0], bool)[counted]).sum())
            objects = sum(not row["iscrowd"] for row in truth["annotations"])
            best = max(best, 2 * right / max(1, objects + right + wrong))
        if any(not row["iscrowd"] for row in truth["annotations"]):
            assert pytest.approx(best, abs=1e-12) == best_f1_metrics(truth, results).F1
