"""Compute confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats


def confidence_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the mean (Student's t); (-inf, inf) for fewer than two values."""
    if len(values) < 2:
        return -math.inf, math.inf
    t = float(stats.t.ppf(0.975, df=len(values) - 1))
    mean, half = float(np.mean(values)), t * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean - half, mean + half
