"""Precision, recall and F1 over the score threshold: hand-worked numbers, and the best threshold of the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retinanet.evaluate.per_image import ImageResults, best_threshold
from retinanet.evaluate.threshold_curve import threshold_curve
from retinanet.report import Report
from retinanet.report.threshold_curve import f1_figure

BOX = [0.0, 0, 10, 10]
FAR = [100.0, 0, 110, 10]


def image(scores: list[float], boxes: list[list[float]], objects: int = 2) -> ImageResults:
    """Return an image with objects at BOX and below it, and detections of the only class."""
    truth = np.array([[0.0, 20 * g, 10, 20 * g + 10] for g in range(objects)]).reshape(-1, 4)
    return ImageResults(
        name="a",
        image=Path("a.png"),
        boxes_G4=truth,
        labels_G=np.zeros(objects, int),
        detected_D4=np.array(boxes, dtype=float).reshape(-1, 4),
        detected_labels_D=np.zeros(len(boxes), int),
        scores_D=np.array(scores),
    )


def test_metrics_by_hand() -> None:
    """Two objects, one found with the score 0.6; false detections with the scores 0.3 and 0.8."""
    curve = threshold_curve([image([0.6, 0.3, 0.8], [BOX, FAR, FAR])])
    at = {round(t, 2): i for i, t in enumerate(curve.thresholds_T.tolist())}
    for threshold, precision, recall, f1 in (
        (0.3, 1 / 3, 0.5, 2 / 5),
        (0.31, 1 / 2, 0.5, 2 / 4),
        (0.6, 1 / 2, 0.5, 2 / 4),
        (0.61, 0.0, 0.0, 0.0),
    ):
        i = at[threshold]
        assert (curve.precision_T[i], curve.recall_T[i], curve.f1_T[i]) == pytest.approx((precision, recall, f1))
    assert np.isnan(curve.precision_T[at[0.81]]), "no detection: the precision is not defined"


def test_the_best_threshold_has_the_highest_f1_of_the_curve() -> None:
    rng = np.random.default_rng(0)
    items = [
        image(rng.beta(5, 2, 2).tolist() + rng.beta(2, 5, 4).tolist(), [BOX, [0, 20, 10, 30], FAR, FAR, FAR, FAR])
        for _ in range(50)
    ]
    curve = threshold_curve(items)
    grid = [i for i, t in enumerate(curve.thresholds_T.tolist()) if round(t * 100) % 5 == 0]
    best = best_threshold(items)
    assert curve.f1_T[np.isclose(curve.thresholds_T, best)] == curve.f1_T[grid].max()
    section = Report(title="t").section("s")
    f1_figure(section, items)
    (block,) = section.blocks
    assert f"At the threshold {best:.2f}: F1 {curve.f1_T[grid].max():.3f}" in block.text
    assert "this threshold has the highest F1" in block.text


def test_a_given_threshold_is_marked() -> None:
    section = Report(title="t").section("s")
    f1_figure(section, [image([0.6], [BOX])], threshold=0.33)
    (block,) = section.blocks
    assert "At the threshold 0.33: F1 0.667, precision 1.000, recall 0.500." in block.text
    assert "highest F1" not in block.text


def test_nothing_is_drawn_without_objects_or_right_detections() -> None:
    section = Report(title="t").section("s")
    f1_figure(section, [])
    f1_figure(section, [image([0.9], [FAR], objects=0)])
    f1_figure(section, [image([0.9], [FAR])])
    assert not section.blocks
