"""Calibrate the scores of each class: make a score the probability that the detection is right.

Platt scaling replaces the logit of a score by factor x logit + shift (Platt, 1999: "Probabilistic outputs for support
vector machines"). It keeps the order of the detections of a class, so AP of the class does not change, and it can be
made part of the last convolution of the network (`model.rescale_logits`).

Shape suffixes: D detections, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, logit

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]

FOLDS: Final = 5
"""Number of folds of images for the choice between no calibration and Platt scaling."""
MIN_CORRECT: Final = 10
"""Smallest number of right detections of a class that is calibrated."""
FACTOR_PRIOR: Final = 1.0
"""Standard deviation of the normal prior of the factor, around 1. It decides only where detections are few."""
SHIFT_PRIOR: Final = 5.0
"""Standard deviation of the normal prior of the shift, around 0."""
MIN_FACTOR: Final = 0.05
"""Smallest factor: a factor of 0 would lose the order of the detections."""
MARGIN: Final = 1e-6
"""Distance from 0 and 1 to which scores are limited before the logit, so that it stays finite."""


@dataclass(frozen=True, kw_only=True)
class ClassCalibration:
    """Calibration of a class.

    Args:
        factor, shift: the calibrated logit is factor x logit + shift. 1 and 0: not calibrated.
        detections: number of detections from which the calibration was fitted.
        correct: number of these that are right.
        log_loss: mean -log of the probability that was given to the outcome, on images that the calibration was not
            fitted on, for "none", "platt" and "isotonic"; empty if too few detections are right.
    """

    factor: float = 1.0
    shift: float = 0.0
    detections: int = 0
    correct: int = 0
    log_loss: dict[str, float]

    @property
    def is_calibrated(self) -> bool:
        """Whether calibration changes the scores."""
        return (self.factor, self.shift) != (1.0, 0.0)


def score_logits(scores_D: npt.NDArray[np.floating]) -> Floats:
    """Return the logits of scores, which are first limited to [1e-6, 1 - 1e-6]."""
    return np.asarray(logit(np.clip(np.asarray(scores_D, np.float64), MARGIN, 1 - MARGIN)), np.float64)


def calibrated(score: float, calibration: ClassCalibration) -> float:
    """Return the calibrated value of a score. 0 and 1 keep their values."""
    if not 0 < score < 1:
        return score
    return float(expit(calibration.factor * logit(score) + calibration.shift))


def fit_platt(logit_D: Floats, correct_D: Bools) -> tuple[float, float]:
    """Return the factor and shift of the logit with the lowest log loss.

    The targets are (c + 1) / (c + 2) for right and 1 / (w + 2) for wrong detections, with c right and w wrong ones
    (Platt, 1999, section 2.2). Normal priors hold the factor near 1 and the shift near 0 where detections are few.

    Args:
        logit_D: logits of the scores.
        correct_D: whether each detection is right.
    """
    correct = int(correct_D.sum())
    target_D = np.where(correct_D, (correct + 1) / (correct + 2), 1 / (len(correct_D) - correct + 2))

    def loss(values: Floats) -> tuple[float, Floats]:
        factor, shift = values
        z_D = factor * logit_D + shift
        total = np.logaddexp(0, z_D).sum() - (target_D * z_D).sum()
        total += ((factor - 1) / FACTOR_PRIOR) ** 2 / 2 + (shift / SHIFT_PRIOR) ** 2 / 2
        error_D = expit(z_D) - target_D
        slope = [
            (error_D * logit_D).sum() + (factor - 1) / FACTOR_PRIOR**2,
            error_D.sum() + shift / SHIFT_PRIOR**2,
        ]
        return float(total), np.array(slope)

    found = minimize(loss, [1.0, 0.0], jac=True, bounds=[(MIN_FACTOR, None), (None, None)], method="L-BFGS-B")
    return float(found.x[0]), float(found.x[1])


def calibrate_class(scores_D: Floats, correct_D: Bools, fold_D: Ints) -> ClassCalibration:
    """Return the calibration of a class: Platt scaling if it lowers the log loss on held-out images, otherwise none.

    Isotonic regression is measured for comparison and not used: its steps give equal scores to different detections,
    and no convolution computes it.

    Args:
        scores_D: scores of the detections of the class.
        correct_D: whether each detection is right.
        fold_D: fold of the image of each detection, from 0 to `FOLDS` - 1.
    """
    count, correct = len(scores_D), int(correct_D.sum())
    if correct < MIN_CORRECT:
        return ClassCalibration(detections=count, correct=correct, log_loss={})
    logit_D = score_logits(scores_D)
    probability_D = {name: expit(logit_D) for name in ("none", "platt", "isotonic")}
    for fold in range(FOLDS):
        own_D = fold_D == fold
        if not own_D.any() or own_D.all():
            continue
        factor, shift = fit_platt(logit_D[~own_D], correct_D[~own_D])
        probability_D["platt"][own_D] = expit(factor * logit_D[own_D] + shift)
        probability_D["isotonic"][own_D] = _isotonic(logit_D[~own_D], correct_D[~own_D], logit_D[own_D])
    log_loss = {name: _log_loss(values_D, correct_D) for name, values_D in probability_D.items()}
    if log_loss["platt"] >= log_loss["none"]:
        return ClassCalibration(detections=count, correct=correct, log_loss=log_loss)
    factor, shift = fit_platt(logit_D, correct_D)
    return ClassCalibration(factor=factor, shift=shift, detections=count, correct=correct, log_loss=log_loss)


def _isotonic(logit_D: Floats, correct_D: Bools, other_D: Floats) -> Floats:
    """Return the probabilities that isotonic regression, fitted on the first detections, gives to others."""
    order = np.argsort(logit_D, kind="stable")
    fitted = isotonic_regression(correct_D[order].astype(np.float64)).x
    least = 1 / (len(logit_D) + 2)
    return np.asarray(np.interp(other_D, logit_D[order], fitted).clip(least, 1 - least), np.float64)


def _log_loss(probability_D: Floats, correct_D: Bools) -> float:
    return float(-np.log(np.where(correct_D, probability_D, 1 - probability_D).clip(MARGIN)).mean())
