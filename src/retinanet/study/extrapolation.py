"""Fit AP over the number of training images, and extrapolate the gain of more images.

The curve is the saturating power law `AP(n) = a - b n^-c` (Hestness et al., arXiv 1712.00409; Mahmood et al., arXiv
2207.01725, for detectors). With n in units of the present number of images, b is the distance of AP to its limit a.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

FACTOR: Final = 2.0
"""Factor of the number of images up to which the curve is extrapolated."""
FACTOR_TEXT: Final = "twice"
"""`FACTOR` in sentences."""
EXPONENTS: Final = np.geomspace(0.05, 2, 300)
"""Values of c that are tried: from a curve that grows almost with the logarithm of n, to one that is soon flat."""
RESAMPLES: Final = 1000
"""Number of simulated repetitions of the runs."""
FLAT: Final = 0.01
"""A curve is flat if its gain is below this AP with a probability of 97.5 %."""
LEAST_GAIN: Final = 0.001
"""Lower end of the interval of the gain from which a gain is supported."""
WIDEST: Final = 0.1
"""Widest interval of a gain that the runs determine."""
MISFIT: Final = 0.02
"""Distance of a measured mean to the curve, in AP, above which the curve is refused unless chance explains it."""

Floats = npt.NDArray[np.float64]
Verdict = Literal["gain", "flat", "undetermined"]


@dataclass(frozen=True, kw_only=True)
class Extrapolation:
    """Expected gain of more images.

    Args:
        verdict: "gain", "flat", or "undetermined" if the runs do not determine the curve.
        gain: AP at `FACTOR` times the present number of images minus the present AP, of the fitted curve.
        low, high: 95 % interval of the gain.
        parameters: a, b and c of the fitted curve, with n in units of the present number of images; None without a fit.
    """

    verdict: Verdict
    gain: float = 0.0
    low: float = 0.0
    high: float = 0.0
    parameters: tuple[float, float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values for JSON; None for those that the runs do not determine."""
        known = self.parameters is not None
        return {
            "verdict": self.verdict,
            "factor": FACTOR,
            "gain": self.gain if known else None,
            "interval": [self.low, self.high] if known else None,
            "curve": list(self.parameters) if self.parameters is not None else None,
        }


def extrapolate(images_F: Sequence[int], aps_FS: Sequence[Sequence[float]]) -> Extrapolation:
    """Return the expected gain of `FACTOR` times as many images as the largest measured number.

    The interval comes from simulated repetitions. Each mean moves by a quantile of Student's t times its standard
    error, with the variance over the seeds pooled over all numbers of images, and the curve is fitted again.

    Args:
        images_F: number of training images of each point, at least three different numbers for a fit.
        aps_FS: AP of each seed at each point, at least two seeds for an interval.
    """
    x_F = np.asarray(images_F, np.float64) / max(images_F)
    values_FS = np.asarray(aps_FS, np.float64)
    mean_F, (points, seeds) = values_FS.mean(axis=1), values_FS.shape
    if len(set(images_F)) < 3 or seeds < 2 or mean_F.max() < FLAT:
        return Extrapolation(verdict="undetermined")
    error = float(np.sqrt(values_FS.var(axis=1, ddof=1).mean() / seeds))
    a, b, c = (float(values_1[0]) for values_1 in _fit(x_F, mean_F[None]))
    parameters = a, b, c
    if np.abs(power_law(x_F, *parameters) - mean_F).max() > max(MISFIT, 3 * error):
        return Extrapolation(verdict="undetermined")
    rng = np.random.default_rng(0)
    moves_RF = error * stats.t.rvs(df=points * (seeds - 1), size=(RESAMPLES, points), random_state=rng)
    _, b_R, c_R = _fit(x_F, np.clip(mean_F + moves_RF, 0, 1))
    low, high = (float(value) for value in np.percentile(b_R * (1 - FACTOR**-c_R), [2.5, 97.5]))
    verdict: Verdict = "undetermined"
    if high < FLAT:
        verdict = "flat"
    elif low >= LEAST_GAIN and high - low <= WIDEST:
        verdict = "gain"
    return Extrapolation(verdict=verdict, gain=b * (1 - FACTOR**-c), low=low, high=high, parameters=parameters)


def power_law(x: Floats, a: float, b: float, c: float) -> Floats:
    """Return `a - b x^-c`."""
    result: Floats = a - b * np.asarray(x, np.float64) ** -c
    return result


def _fit(x_F: Floats, means_RF: Floats) -> tuple[Floats, Floats, Floats]:
    """Return a, b and c with the least squares for each row of means: a at most 1, b at least 0, c out of `EXPONENTS`.

    For a given c, the curve is linear in a and b, and the best a and b have a closed form.
    """
    u_CF = x_F[None] ** -EXPONENTS[:, None]
    centred_CF = u_CF - u_CF.mean(axis=1, keepdims=True)
    b_RC = np.maximum(0, -(means_RF @ centred_CF.T) / (centred_CF**2).sum(axis=1))
    a_RC = means_RF.mean(axis=1, keepdims=True) + b_RC * u_CF.mean(axis=1)
    limited_RC = a_RC > 1
    b_RC = np.where(limited_RC, np.maximum(0, (1 - means_RF) @ u_CF.T / (u_CF**2).sum(axis=1)), b_RC)
    a_RC = np.where(limited_RC, 1, a_RC)
    errors_RC = ((a_RC[..., None] - b_RC[..., None] * u_CF - means_RF[:, None]) ** 2).sum(axis=2)
    best_R, rows = errors_RC.argmin(axis=1), np.arange(len(means_RF))
    return a_RC[rows, best_R], b_RC[rows, best_R] + 0.0, EXPONENTS[best_R]  # + 0.0: -0.0 becomes 0.0
