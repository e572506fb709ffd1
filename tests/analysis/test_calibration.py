"""Calibration of scores: the fit against known factors, and the choice on held-out images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from retinanet.analysis.calibration import (
    FOLDS,
    ClassCalibration,
    calibrate_class,
    calibrated,
    fit_platt,
    score_logits,
)


def test_the_fit_finds_the_factor_and_shift_that_made_the_outcomes() -> None:
    """P(right) = sigmoid(2 z - 1): with 40,000 outcomes, both numbers are known to about 0.05."""
    rng = np.random.default_rng(0)
    logit_D = rng.normal(0, 2, 40_000)
    correct_D = rng.random(40_000) < expit(2 * logit_D - 1)
    assert fit_platt(logit_D, correct_D) == pytest.approx((2, -1), abs=0.08)


def test_few_detections_stay_near_their_scores() -> None:
    """With two detections, the priors hold the factor near 1, and no number is infinite."""
    factor, shift = fit_platt(np.array([-1.0, 1.0]), np.array([False, True]))
    assert 0.5 < factor < 1.5
    assert abs(shift) < 0.5


def test_all_detections_right_gives_finite_numbers() -> None:
    factor, shift = fit_platt(score_logits(np.linspace(0.3, 1, 50)), np.ones(50, dtype=bool))
    assert np.isfinite([factor, shift]).all()
    assert shift > 1, "the scores are too low"


def outcomes(count: int, factor: float, shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, outcomes with P(right) = sigmoid(factor x logit + shift), and folds."""
    rng = np.random.default_rng(count)
    scores_D = rng.uniform(0.02, 0.98, count)
    return scores_D, rng.random(count) < expit(factor * logit(scores_D) + shift), rng.integers(0, FOLDS, count)


def test_wrong_scores_are_calibrated() -> None:
    found = calibrate_class(*outcomes(3000, 1.5, 1.0))
    assert found.is_calibrated
    assert (found.factor, found.shift) == pytest.approx((1.5, 1.0), abs=0.2)
    assert found.log_loss["platt"] < found.log_loss["none"]
    assert found.log_loss["platt"] == pytest.approx(found.log_loss["isotonic"], abs=0.02)


def test_a_class_with_few_right_detections_is_not_calibrated() -> None:
    found = calibrate_class(np.full(100, 0.9), np.arange(100) < 9, np.arange(100) % FOLDS)
    assert found == ClassCalibration(detections=100, correct=9, log_loss={})
    assert not found.is_calibrated


def test_right_scores_are_kept_where_the_fit_does_not_help_held_out_images() -> None:
    """Of 40 classes whose scores are right already, few are changed, and by little."""
    found = [calibrate_class(*outcomes(200 + seed, 1.0, 0.0)) for seed in range(40)]
    changed = [one for one in found if one.is_calibrated]
    assert len(changed) < 15
    assert all(0.5 < one.factor < 2 and abs(one.shift) < 1 for one in changed)


def test_a_calibrated_score_by_hand() -> None:
    """Score 0.5 has the logit 0. With factor 2 and shift log 3, the result is sigmoid(log 3) = 0.75."""
    calibration = ClassCalibration(factor=2.0, shift=np.log(3), log_loss={})
    assert calibrated(0.5, calibration) == pytest.approx(0.75)
    assert calibrated(0.0, calibration) == 0
    assert calibrated(1.0, calibration) == 1
