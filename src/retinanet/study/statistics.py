"""Compute confidence intervals, and differences of set-ups that were trained with the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import stats

POWER: Final = 0.8
"""Probability with which runs show a difference of size `PairedDifference.detectable`."""


def confidence_interval(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of the mean (Student's t); (-inf, inf) for fewer than two values."""
    if len(values) < 2:
        return -math.inf, math.inf
    t = float(stats.t.ppf((1 + confidence) / 2, df=len(values) - 1))
    mean, half = float(np.mean(values)), t * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean - half, mean + half


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Difference of two set-ups, paired by seed: the value of a set-up minus the value of the reference.

    Args:
        mean: mean of the differences.
        low, high: confidence interval of the mean (Student's t), 95 % by default; infinite for fewer than two pairs.
        detectable: smallest true difference that a test at 5 % with this spread and this number of pairs shows with
            probability `POWER`; infinite for fewer than two pairs.
    """

    mean: float
    low: float
    high: float
    detectable: float

    @property
    def is_supported(self) -> bool:
        """True if the interval does not contain 0."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values for JSON; None for an infinite bound."""
        bounds = {"interval": (self.low, self.high), "detectable": (self.detectable,)}
        finite = {name: [v if math.isfinite(v) else None for v in values] for name, values in bounds.items()}
        return {
            "mean": self.mean,
            "interval": finite["interval"],
            "supported": self.is_supported,
            "detectable": finite["detectable"][0],
        }


def paired_difference(
    values: Sequence[float], reference: Sequence[float], *, confidence: float = 0.95
) -> PairedDifference:
    """Return the difference of two set-ups whose values have the same seeds in the same order.

    The detectable difference is `(t(0.975) + t(POWER)) * s / sqrt(n)`, with n pairs, the standard deviation s of the
    differences and quantiles t of Student's distribution with n - 1 degrees of freedom: the usual approximation of the
    power of a paired t test. It does not depend on `confidence`.

    Args:
        values: one value for each seed.
        reference: the values of the reference.
        confidence: confidence of the interval. For m comparisons, 1 - 0.05 / m keeps the chance of any false difference
            below 5 % (Bonferroni).

    Raises:
        ValueError: the numbers of values differ, or there is no value.
    """
    if len(values) != len(reference) or len(values) == 0:
        raise ValueError(f"expected the values of the same seeds, found {len(values)} and {len(reference)} values")
    differences = np.subtract(values, reference, dtype=np.float64)
    count, (low, high) = len(differences), confidence_interval(differences.tolist(), confidence=confidence)
    detectable = math.inf
    if count > 1:
        quantiles = float(stats.t.ppf([0.975, POWER], df=count - 1).sum())
        detectable = quantiles * float(np.std(differences, ddof=1)) / math.sqrt(count)
    return PairedDifference(mean=float(differences.mean()), low=low, high=high, detectable=detectable)
