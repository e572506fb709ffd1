"""What a study concludes from its runs: differences, divergence, the suggestion."""

import pytest

from retinanet.study.results import differs
from tests.study.made import found, outcome


def test_overlapping_intervals_are_no_difference():
    focal, same = outcome("focal", [0.50, 0.51, 0.52]), outcome("ce", [0.51, 0.52, 0.53])
    worse = outcome("ohem", [0.10, 0.11, 0.12])
    assert not differs(focal, same)
    assert differs(focal, worse)
    said = " ".join(found(focal, same, worse).sentences())
    assert "No measurable difference, as the intervals overlap, between focal (0.510) and: ce (0.520)" in said
    assert "ohem is worse than focal by 0.400 AP" in said
    assert "Highest AP: ce" in said


def test_one_seed_supports_nothing():
    said = " ".join(found(outcome("focal", [0.5]), outcome("ce", [0.1])).sentences())
    assert "single seed" in said
    assert "No measurable difference" in said


def test_diverged_and_idle_runs_are_named():
    said = " ".join(found(outcome("focal", [0.5, 0.5]), outcome("ce", [0, 0], diverged=2)).sentences())
    assert "ce: 2 of 2 runs diverged" in said
    said = " ".join(found(outcome("focal", [0.5, 0.5]), outcome("ce", [0.001, 0.002])).sentences())
    assert "ce learnt nothing" in said


@pytest.mark.parametrize(
    ("aps", "says"),
    [
        ([0.60, 0.61, 0.62], "Use --alpha 0.25 --gamma 2: measurably better"),
        (
            [0.505, 0.515, 0.525],
            "--alpha 0.25 --gamma 2 has the highest mean of the focal settings, but not measurably",
        ),
        ([0.30, 0.31, 0.32], "is the best here: --alpha 0.75 --gamma 2"),
    ],
)
def test_the_suggestion(aps, says):
    first = outcome("focal", [0.50, 0.51, 0.52], options={"loss": "focal", "alpha": 0.75, "gamma": 2.0})
    other = outcome("quarter", aps, options={"loss": "focal", "alpha": 0.25, "gamma": 2.0})
    assert says in found(first, other).suggestion()
