"""Confidence intervals of the study."""

import math

import numpy as np
import pytest

from retinanet.study.statistics import confidence_interval


def test_confidence_interval_by_hand():
    """0.50, 0.52, 0.54: mean 0.52, standard deviation 0.02, t(2) = 4.303, half width 4.303 x 0.02 / sqrt(3)."""
    low, high = confidence_interval([0.50, 0.52, 0.54])
    assert (low, high) == pytest.approx((0.52 - 0.049687, 0.52 + 0.049687), abs=1e-5)
    assert confidence_interval([0.5]) == (-math.inf, math.inf)
    assert confidence_interval([0.5] * 20) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(("values", "quantile"), [(2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262), (15, 2.145)])
def test_quantiles_equal_the_printed_tables(values, quantile):
    """Quantiles of Student's t at 97.5 % with values - 1 degrees of freedom, as printed in tables."""
    numbers = np.arange(values, dtype=float)
    low, high = confidence_interval(numbers.tolist())
    half = (high - low) / 2
    assert half * math.sqrt(values) / numbers.std(ddof=1) == pytest.approx(quantile, abs=5e-4)
