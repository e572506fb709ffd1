"""Confidence intervals and paired differences of the study."""

import math

import numpy as np
import pytest

from retinanet.study.statistics import confidence_interval, paired_difference


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


def test_paired_difference_by_hand():
    """Differences 0.02, 0.03, 0.04: mean 0.03, s 0.01, half width 4.303 s / sqrt(3), detectable 5.363 s / sqrt(3)."""
    difference = paired_difference([0.52, 0.63, 0.34], [0.50, 0.60, 0.30])
    assert difference.mean == pytest.approx(0.03)
    assert (difference.low, difference.high) == pytest.approx((0.03 - 0.024842, 0.03 + 0.024842), abs=1e-5)
    assert difference.detectable == pytest.approx(0.030965, abs=1e-5)
    assert difference.is_supported


def test_a_higher_confidence_widens_the_interval_only():
    """t(2) at 98.75 % is 6.205: half width 6.205 x 0.01 / sqrt(3) = 0.035825 for two comparisons (Bonferroni)."""
    difference = paired_difference([0.52, 0.63, 0.34], [0.50, 0.60, 0.30], confidence=0.975)
    assert (difference.low, difference.high) == pytest.approx((0.03 - 0.035825, 0.03 + 0.035825), abs=1e-5)
    assert difference.detectable == pytest.approx(0.030965, abs=1e-5)
    assert not difference.is_supported


def test_a_single_pair_supports_nothing():
    """The interval and the detectable difference of one pair are infinite."""
    difference = paired_difference([0.9], [0.1])
    assert difference.mean == pytest.approx(0.8)
    assert (difference.low, difference.high, difference.detectable) == (-math.inf, math.inf, math.inf)
    assert not difference.is_supported


@pytest.mark.parametrize(("values", "reference"), [([], []), ([0.1, 0.2], [0.1])])
def test_unpaired_values_are_refused(values, reference):
    """Values without a partner raise an error that states both numbers."""
    with pytest.raises(ValueError, match=rf"found {len(values)} and {len(reference)} values"):
        paired_difference(values, reference)


def test_the_detectable_difference_is_found_in_80_percent_of_simulated_studies():
    """Of 4,000 studies with 5 seeds and the true difference `detectable`, about 80 % support the difference."""
    rng, seeds, spread = np.random.default_rng(0), 5, 0.01
    true = (2.7764 + 0.9410) * spread / math.sqrt(seeds)
    noise = rng.normal(true, spread, (4000, seeds))
    found = np.mean([paired_difference(row, np.zeros(seeds)).is_supported for row in noise])
    assert found == pytest.approx(0.8, abs=0.04)
