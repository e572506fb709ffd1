"""The curve of AP over the number of images, and what more images would bring."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet.study.extrapolation import extrapolate, power_law

IMAGES = [40, 100, 200, 400]
X = np.array(IMAGES) / 400


def test_runs_on_an_exact_curve_by_hand():
    """AP = 0.8 - 0.2 x^-0.5: 0.6 now, 0.8 - 0.2 / sqrt(2) = 0.6586 with twice as many images, a gain of 0.0586."""
    found = extrapolate(IMAGES, [[ap] * 3 for ap in power_law(X, 0.8, 0.2, 0.5)])
    assert found.verdict == "gain"
    assert found.parameters == pytest.approx((0.8, 0.2, 0.5), abs=0.01)
    assert (found.gain, found.low, found.high) == pytest.approx((0.0586, 0.0586, 0.0586), abs=5e-4)


def test_a_flat_curve():
    found = extrapolate(IMAGES, [[0.60, 0.61, 0.59], [0.61, 0.60, 0.60], [0.60, 0.60, 0.61], [0.60, 0.61, 0.60]])
    assert found.verdict == "flat"
    assert found.high < 0.01


@pytest.mark.parametrize(
    ("images", "aps"),
    [
        ([100, 400], [[0.4, 0.5], [0.6, 0.7]]),
        (IMAGES, [[0.2], [0.4], [0.5], [0.55]]),
        (IMAGES, [[0.0, 0.001]] * 4),
        (IMAGES, [[0.1, 0.1], [0.5, 0.5], [0.1, 0.1], [0.5, 0.5]]),
        (IMAGES, [[0.2, 0.5], [0.5, 0.2], [0.3, 0.6], [0.65, 0.3]]),
    ],
    ids=["two fractions", "one seed", "nothing learnt", "no saturating curve", "noise"],
)
def test_runs_that_do_not_determine_the_curve(images, aps):
    found = extrapolate(images, aps)
    assert found.verdict == "undetermined"
    assert (found.to_json()["gain"] is None) == (found.parameters is None)


def test_the_curve_stays_within_its_limits():
    """AP that grows ever faster, and AP beyond 1: b is at least 0, a at most 1."""
    falling = extrapolate(IMAGES, [[0.63, 0.62], [0.62, 0.61], [0.61, 0.62], [0.60, 0.61]])
    assert falling.parameters is not None
    assert falling.parameters[1] == 0
    steep = extrapolate(IMAGES, [[ap] * 2 for ap in (0.5, 0.7, 0.85, 0.98)])
    assert steep.parameters is None or steep.parameters[0] <= 1


@pytest.mark.slow
def test_the_interval_contains_the_true_gain_in_most_simulated_studies():
    """Of 60 studies with 3 seeds and a standard deviation of 0.01, about 57 intervals contain the gain."""
    rng, true = np.random.default_rng(3), 0.2 * (1 - 2**-0.5)
    hits = 0
    for _ in range(60):
        aps = power_law(X, 0.8, 0.2, 0.5)[:, None] + rng.normal(0, 0.01, (4, 3))
        found = extrapolate(IMAGES, aps.tolist())
        hits += found.low <= true <= found.high
    assert hits >= 52
