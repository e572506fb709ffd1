"""The plan of a probe fits into its time, with numbers worked by hand."""

import pytest

from retinanet.errors import ConfigError
from retinanet.study.probe_plan import MAX_SEEDS, MAX_STEPS, Durations, plan_runs
from tests.study.probes import candidate

LAPTOP = Durations(step=0.4, fixed=5.0)


def test_without_candidates_three_runs_of_the_default_suffice():
    """3 x (5 + 300 x 0.4) = 375 seconds, although there are 540. 300 seconds leave (300 - 15) / 1.2 = 237 steps."""
    plan = plan_runs([], LAPTOP, seconds=540)
    assert (plan.steps, plan.seeds, plan.screened) == (300, 3, False)
    assert plan.runs() == [1.0] * 3
    assert plan.seconds(LAPTOP) == pytest.approx(375)
    assert plan_runs([], LAPTOP, seconds=300).steps == 237


def test_candidates_are_dropped_before_runs_become_too_short():
    """4 seeds x 2 runs, one candidate: (380 - 8 x 5) / (8 x 0.4) = 106 steps."""
    plan = plan_runs([candidate("x"), candidate("y"), candidate("z")], LAPTOP, seconds=380)
    assert [c.name for c in plan.candidates] == ["x"]
    assert (plan.steps, plan.seeds, plan.screened) == (106, 4, False)


def test_a_screening_selects_among_the_candidates_of_a_cause():
    """Screening of 4 runs and 4 seeds x 2 runs: (1600 - 12 x 5) / (12 x 0.4) = 320 steps."""
    plan = plan_runs([candidate("x"), candidate("y"), candidate("z")], LAPTOP, seconds=1600)
    assert plan.screened
    assert len(plan.candidates) == 3
    assert (plan.steps, plan.seeds, len(plan.runs())) == (320, 4, 12)


def test_no_screening_with_short_runs():
    """905 seconds would leave 176 steps after a screening. One candidate has (905 - 8 x 5) / (8 x 0.4) = 270 steps."""
    plan = plan_runs([candidate("x"), candidate("y"), candidate("z")], LAPTOP, seconds=905)
    assert [c.name for c in plan.candidates] == ["x"]
    assert (plan.steps, plan.seeds, plan.screened) == (270, 4, False)


def test_two_causes_leave_time_for_their_combination():
    """For each seed: the default, two changes, and the combination, whose steps cost as much as the slower change."""
    plan = plan_runs([candidate("x", cause="x", cost=2.5), candidate("y", cause="y")], LAPTOP, seconds=1200)
    assert plan.runs() == [1.0, 2.5, 1.0, 2.5] * plan.seeds
    assert plan.seconds(LAPTOP) <= 1200


def test_little_time_means_three_seeds():
    """4 seeds x 2 runs would have 75 steps. 3 seeds x 2 runs: (280 - 6 x 5) / (6 x 0.4) = 104 steps."""
    plan = plan_runs([candidate()], LAPTOP, seconds=280)
    assert (plan.steps, plan.seeds) == (104, 3)


def test_a_fast_device_adds_seeds_and_steps_up_to_a_limit():
    plan = plan_runs([candidate()], Durations(step=0.01, fixed=1.0), seconds=540)
    assert (plan.steps, plan.seeds) == (MAX_STEPS, MAX_SEEDS)


def test_too_little_time_is_refused_with_the_time_that_is_needed():
    """3 seeds x 2 runs of 40 steps: 6 x (5 + 16) = 126 s = 2.1 minutes."""
    with pytest.raises(
        ConfigError, match=r"at least 2\.1 minutes for 6 training runs of 40 steps .* found 1\.0\. Give"
    ):
        plan_runs([candidate("x"), candidate("y")], LAPTOP, seconds=60)
