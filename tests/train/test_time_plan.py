"""The plan of a run with a time budget, with simulated clocks: it ends in time, with a complete schedule."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from retinanet.train.time_plan import EVALUATION_SHARE, RunShape, TimePlan


class Clock:
    """A clock that moves only when the simulation adds time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Simulated:
    """Result of a simulated run: duration, steps, the progress after each step, and the evaluated steps."""

    seconds: float
    steps: int
    progress: list[float]
    factors: list[float]
    evaluated: list[int] = field(default_factory=list)


def simulate(
    plan, clock, step_seconds, *, evaluation=5.0, estimate=None, shape=None, startup=20.0, first_step=0, stop_at=None
):
    """Run the callbacks' order of calls: steps, an evaluation after some epochs, and the last evaluation."""
    shape = shape or RunShape(steps_per_epoch=50, warmup_steps=500)
    begun, step = clock.now, first_step
    result = Simulated(0, 0, [], [])
    clock.now += startup
    plan.evaluation_seconds = plan.evaluation_seconds or (evaluation if estimate is None else estimate)
    plan.begin(shape)
    while not plan.is_finished(step) and step != stop_at:
        result.factors.append(plan.lr_position(step)[0])
        clock.now += step_seconds(step)
        assert clock.now < begun + 100_000, "the run does not end"
        step += 1
        plan.end_step(step)
        result.progress.append(plan.progress)
        epoch_ends = step % shape.steps_per_epoch == 0
        wanted = epoch_ends and not plan.is_finished(step) and plan.should_evaluate(step, step // shape.steps_per_epoch)
        if wanted or plan.is_finished(step):
            plan.begin_evaluation()
            clock.now += evaluation
            plan.end_evaluation()
            result.evaluated.append(step)
    result.seconds, result.steps = clock.now - begun, step
    return result


def constant(step):
    return 0.5


def first_steps_slow(step):
    return 15.0 if step == 0 else 3.0 if step < 3 else 0.5


def slowing(step):
    return 0.3 + 0.001 * step


def faster(step):
    return max(0.1, 1.5 - 0.002 * step)


def jitter(step):
    return float(np.random.default_rng(step).gamma(1.0, 0.5))


def stalls(step):
    return 30.0 if step % 400 == 399 else 0.4


COURSES = [constant, first_steps_slow, slowing, faster, jitter, stalls]


@pytest.mark.parametrize("evaluation", [0.5, 5.0, 60.0, 200.0])
@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("epoch", [4, 50, 100_000])
def test_a_run_ends_within_5_percent_with_a_complete_schedule(course, evaluation, epoch):
    clock = Clock()
    plan = TimePlan(1200, clock=clock)
    shape = RunShape(steps_per_epoch=epoch, warmup_steps=500)
    run = simulate(plan, clock, course, evaluation=evaluation, shape=shape)
    assert run.seconds == pytest.approx(1200, rel=0.05)
    assert run.progress[-1] == 1.0, "the schedule is complete"
    assert (np.diff(run.progress) >= 0).all()
    assert (np.diff(run.factors) >= 0).all(), "the warm-up rises"
    assert run.factors[-1] == 1.0
    assert run.evaluated[-1] == run.steps, "the last evaluation follows the last step"
    assert len(run.evaluated) * evaluation <= max(EVALUATION_SHARE * 1200, evaluation) + 1e-6


@pytest.mark.parametrize("estimate", [1.0, 40.0])
def test_a_wrong_estimate_of_the_evaluation_is_replaced_by_the_first_measurement(estimate):
    clock = Clock()
    plan = TimePlan(1200, clock=clock)
    run = simulate(plan, clock, constant, evaluation=20.0, estimate=estimate)
    assert run.seconds == pytest.approx(1200, rel=0.05)
    assert plan.evaluation_seconds == 20.0


def test_constant_steps_give_the_schedule_of_a_fixed_number_of_steps():
    """1188 s (99 % of the budget) without 20 s of start and 18 s of evaluation give 1150 steps of 1 s."""
    clock = Clock()
    plan = TimePlan(1200, clock=clock)
    shape = RunShape(steps_per_epoch=10**9, warmup_steps=50)
    run = simulate(plan, clock, lambda step: 1.0, evaluation=18.0, shape=shape)
    assert run.steps == 1150
    assert plan.warmup == 50
    expected = [max(0.0, (step - 50) / (1150 - 50)) for step in range(1, 1151)]
    np.testing.assert_allclose(run.progress, expected, atol=1e-9)


def test_evaluations_are_spread_and_follow_evaluate_every():
    """An evaluation of 10 s after each of 40 epochs of 25 s would take 29 % of the time."""
    clock = Clock()
    run = simulate(TimePlan(1200, clock=clock), clock, constant, evaluation=10.0)
    assert 15 <= len(run.evaluated) <= 24
    assert max(np.diff(run.evaluated)) <= 3 * 50
    clock = Clock()
    shape = RunShape(steps_per_epoch=50, warmup_steps=500, evaluate_every=10)
    run = simulate(TimePlan(1200, clock=clock), clock, constant, evaluation=1.0, shape=shape)
    assert len(run.evaluated) == 5, "of 46 epochs: epochs 10, 20, 30, 40 (counted as by the simulation), and the end"


def test_a_resumed_run_continues_its_plan():
    """The run stops after 600 steps, is down for a day, and starts again in 20 s."""
    clock = Clock()
    first = TimePlan(1200, clock=clock)
    before = simulate(first, clock, constant, stop_at=600)
    state = first.state_dict()
    clock.now += 86_400
    resumed = TimePlan(1200, clock=clock)
    resumed.load_state_dict(state)
    assert (resumed.total_steps, resumed.progress, resumed.warmup) == (
        first.total_steps,
        first.progress,
        first.warmup,
    )
    after = simulate(resumed, clock, constant, first_step=600)
    assert before.seconds + after.seconds == pytest.approx(1200, rel=0.05)
    assert after.progress[0] > before.progress[-1]
    assert after.progress[-1] == 1.0


def test_a_larger_budget_extends_a_finished_run():
    """The schedule of the longer run continues at the share of its steps that are done."""
    clock = Clock()
    first = TimePlan(600, clock=clock)
    before = simulate(first, clock, constant)
    longer = TimePlan(1200, clock=clock)
    longer.load_state_dict(first.state_dict())
    assert longer.total_steps is None
    after = simulate(longer, clock, constant, first_step=before.steps)
    assert before.seconds + after.seconds == pytest.approx(1200, rel=0.05)
    assert after.progress[20] == pytest.approx(0.5, abs=0.1)
    assert after.progress[-1] == 1.0


def test_ranks_follow_the_numbers_of_rank_0():
    """Rank 1 measures other times, and gets the numbers of rank 0."""
    sent: list[list[float]] = []

    def send(numbers):
        sent.append(numbers)
        return numbers

    clock = Clock()
    run = simulate(TimePlan(300, clock=clock, share=send), clock, constant)
    received = iter(sent)
    other_clock = Clock()
    plan = TimePlan(300, clock=other_clock, share=lambda numbers: next(received))
    other = simulate(plan, other_clock, slowing, evaluation=3.0)
    assert other.steps == run.steps
    assert other.progress == run.progress
    assert other.evaluated == run.evaluated
    assert next(received, None) is None, "both ranks exchange in the same steps"


def test_a_budget_that_is_too_short_ends_at_the_first_plan():
    clock = Clock()
    run = simulate(TimePlan(30, clock=clock), clock, lambda step: 5.0, evaluation=20.0)
    assert run.steps == 3
    assert run.progress[-1] == 1.0
