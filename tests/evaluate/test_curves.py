"""Precision-recall curves: hand-worked numbers."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet.errors import ConfigError
from retinanet.evaluate import evaluate_results, precision_recall
from tests.evaluate.cats_and_dogs import CAT, DOG, detection, ground_truth

LEFT, RIGHT = [0.0, 0.0, 40.0, 40.0], [50.0, 0.0, 40.0, 40.0]


def test_curve_by_hand() -> None:
    """Detections are right, wrong, right: precision is 1 up to recall 1/2, then 2/3."""
    results = [detection(CAT, LEFT, 0.9), detection(CAT, [0.0, 60.0, 20.0, 20.0], 0.8), detection(CAT, RIGHT, 0.7)]
    objects = ground_truth((CAT, LEFT, 0), (CAT, RIGHT, 0), (DOG, LEFT, 0))
    curve = precision_recall(objects, results)
    assert curve.classes == ("cat", "dog", "cow")
    assert curve.recall_R.tolist() == pytest.approx(np.linspace(0, 1, 101).tolist())
    np.testing.assert_allclose(curve.precision_RK[:51, 0], 1)
    np.testing.assert_allclose(curve.precision_RK[51:, 0], 2 / 3)
    np.testing.assert_allclose(curve.scores_RK[[0, 50, 51, 100], 0], [0.9, 0.9, 0.7, 0.7])
    assert (curve.precision_RK[:, 1] == 0).all()  # a dog, not detected
    assert np.isnan(curve.precision_RK[:, 2]).all()  # no cow in the ground truth
    assert curve.precision_RK[:, 0].mean() == pytest.approx(evaluate_results(objects, results).per_class["cat"].AP50)


def test_curve_at_another_iou() -> None:
    results = [detection(CAT, [0.0, 0.0, 40.0, 30.0], 0.9)]  # IoU 0.75 with LEFT
    assert precision_recall(ground_truth((CAT, LEFT, 0)), results, iou=0.75).precision_RK[0, 0] == pytest.approx(1)
    assert precision_recall(ground_truth((CAT, LEFT, 0)), results, iou=0.8).precision_RK[0, 0] == 0
    with pytest.raises(ConfigError, match=r"0\.50, 0\.55.*found 0\.3"):
        precision_recall(ground_truth((CAT, LEFT, 0)), results, iou=0.3)
