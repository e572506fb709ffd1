"""Confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

T_QUANTILES: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145)
"""Student's t, 97.5 %, for 1, 2, ... degrees of freedom; 1.96 beyond."""


def confidence_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean by Student's t; without bounds from fewer than two values."""
    if len(values) < 2:
        return -math.inf, math.inf
    freedom = len(values) - 1
    t = T_QUANTILES[freedom - 1] if freedom <= len(T_QUANTILES) else 1.96
    mean, half = float(np.mean(values)), t * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean - half, mean + half
