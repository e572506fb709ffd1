"""The plan of a training run that must end at a given time: number of steps, schedule and evaluations.

The plan is made after the first steps and made again every few steps, so that it follows steps that become slower or
faster. With k steps done, n planned steps left and the progress p of the schedule after the warm-up, the next step has
p + (1 - p) / n. The progress therefore rises in every step and reaches 1 in the last step, however often n changes.
With a constant n + k, it is the progress of a run with a fixed number of steps.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

SKIPPED_STEPS: Final = 3
"""Number of first steps that are not measured: they start workers, and compile or tune kernels."""
MEASURED_STEPS: Final = 10
"""Number of steps that are measured before the first plan."""
EARLIEST_SHARE: Final = 0.1
"""Share of the budget after which the plan is made from fewer steps."""
WINDOW: Final = 200
"""Number of latest steps whose mean duration the plan uses."""
STEPS_BETWEEN_PLANS: Final = 10
"""Number of steps between two plans. Each of the last steps has a plan of its own."""
EVALUATION_SHARE: Final = 0.2
"""Largest share of the budget for evaluations, if the last evaluation alone does not take more."""
END_SHARE: Final = 0.01
"""Share of the budget that is kept for the end: the last checkpoint and the report."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunShape:
    """Sizes of a training run that the plan needs.

    Args:
        steps_per_epoch: number of optimiser steps of an epoch.
        warmup_steps: largest number of steps of the warm-up.
        evaluate_every: smallest number of epochs between two evaluations.
    """

    steps_per_epoch: int
    warmup_steps: int
    evaluate_every: int = 1


class TimePlan:
    """Plan the steps, the schedule and the evaluations of a training run within a time budget.

    Args:
        budget: time from the start of the command to the end of training, seconds.
        clock: function that returns the time, seconds.
        started: time of the clock at which the budget starts. Default: now.
        share: function that returns the numbers of rank 0 on every rank; all ranks call it in the same steps.
    """

    def __init__(
        self,
        budget: float,
        *,
        clock: Callable[[], float],
        started: float | None = None,
        share: Callable[[list[float]], list[float]] = lambda numbers: numbers,
    ) -> None:
        self.budget = float(budget)
        self.clock = clock
        self.share = share
        self.shape = RunShape(steps_per_epoch=1, warmup_steps=0)
        self.total_steps: int | None = None
        """Planned number of steps; None before the first plan."""
        self.progress = 0.0
        """Share of the schedule after the warm-up that is done, from 0 to 1."""
        self.warmup: int | None = None
        self.evaluation_seconds = 0.0
        """Duration of an evaluation: the latest one, or an estimate before the first one."""
        self.evaluations = 0
        self.startup_seconds = 0.0
        self._started = clock() if started is None else started
        self._used_before = 0.0
        self._evaluating_since: float | None = None
        self._evaluated_seconds = 0.0
        self._last_step_end: float | None = None
        self._steps_skipped = 0
        self._durations: deque[float] = deque(maxlen=WINDOW)
        self._is_extended = False

    def elapsed(self) -> float:
        """Return the used time over all resumed parts, seconds."""
        return self._used_before + self.clock() - self._started

    @property
    def step_seconds(self) -> float:
        """Mean duration of the latest steps, with data loading and checkpoints, without evaluations; seconds."""
        return sum(self._durations) / len(self._durations) if self._durations else 0.0

    def begin(self, shape: RunShape) -> None:
        """Start to measure: the next step is about to begin."""
        self.shape = shape
        self.startup_seconds = self.startup_seconds or self.elapsed()
        self._last_step_end = self.clock()

    def end_step(self, step: int) -> None:
        """Measure a step, advance the schedule, and plan again if a plan is due.

        Args:
            step: number of optimiser steps done.
        """
        now = self.clock()
        if self._last_step_end is not None:
            self._measure(now - self._last_step_end)
        self._last_step_end = now
        if self.total_steps is not None and self.warmup is not None and step > self.warmup:
            self.progress = min(1.0, self.progress + (1 - self.progress) / max(1, self.total_steps - step + 1))
        if self._is_plan_due(step):
            self._plan(step)

    def _measure(self, seconds: float) -> None:
        if self._steps_skipped < SKIPPED_STEPS:
            self._steps_skipped += 1
            if self._steps_skipped > 1:  # replaced below by better values
                self._durations.append(seconds)
            return
        if self._steps_skipped == SKIPPED_STEPS:
            self._steps_skipped += 1
            self._durations.clear()
        self._durations.append(seconds)

    def _is_plan_due(self, step: int) -> bool:
        enough = self._steps_skipped > SKIPPED_STEPS and len(self._durations) >= MEASURED_STEPS
        if self.total_steps is None:
            (elapsed,) = self.share([self.elapsed()])
            is_late = elapsed >= EARLIEST_SHARE * self.budget or step >= self.shape.steps_per_epoch
            return enough or (is_late and (bool(self._durations) or elapsed >= self.budget))
        if step >= self.total_steps:
            return False
        return enough and (step % STEPS_BETWEEN_PLANS == 0 or self.total_steps - step <= STEPS_BETWEEN_PLANS)

    def _plan(self, step: int) -> None:
        """Set the total number of steps: those that fit into the time before the last evaluation, at least one more.

        A further step completes the schedule if the time is already over.
        """
        cost, seconds = self.evaluation_seconds, self.step_seconds
        left = self.budget * (1 - END_SHARE) - self.elapsed() - cost
        steps = left / seconds if seconds > 0 else 0.0
        if cost > 0 and seconds > 0:
            per_evaluation = self.shape.steps_per_epoch * self.shape.evaluate_every
            affordable = max(0, math.floor((self._for_evaluations() - self._evaluated_seconds) / cost))
            # Evaluations after each epoch, or fewer evaluations if these would take too much of the time.
            evaluations = min(affordable, math.floor(left / (seconds * per_evaluation + cost)))
            steps = (left - evaluations * cost) / seconds
        total = step + max(1, math.floor(steps + 1e-6))
        numbers = self.share([float(total), cost, seconds])
        self.total_steps, self.evaluation_seconds = int(numbers[0]), numbers[1]
        if self.warmup is None:
            self.warmup = min(self.shape.warmup_steps, max(step, self.total_steps // 10))
        if self._is_extended:
            self.progress = max(0, step - self.warmup) / max(1, self.total_steps - self.warmup)
            self._is_extended = False

    def _for_evaluations(self) -> float:
        """Return the time for all evaluations except the last one, seconds."""
        return max(0.0, EVALUATION_SHARE * self.budget - self.evaluation_seconds)

    def lr_position(self, step: int) -> tuple[float, float]:
        """Return the factor of the warm-up on the learning rate, and the progress of the schedule after the warm-up.

        Args:
            step: number of optimiser steps done.
        """
        warmup = self.shape.warmup_steps if self.warmup is None else self.warmup
        return ((step + 1) / (warmup + 1) if step < warmup else 1.0), self.progress

    def is_finished(self, step: int) -> bool:
        """Return whether all planned steps are done."""
        return self.total_steps is not None and step >= self.total_steps

    @property
    def planned_epochs(self) -> int | None:
        """Planned number of epochs, the last of which may be incomplete; None before the first plan."""
        return None if self.total_steps is None else max(1, math.ceil(self.total_steps / self.shape.steps_per_epoch))

    def should_evaluate(self, step: int, epoch: int) -> bool:
        """Return whether the time allows an evaluation after an epoch that is not the last one.

        Evaluations share the time evenly: after a third of the budget, they have had at most a third of their time.

        Args:
            step: number of optimiser steps done.
            epoch: number of the epoch that ends, from 0.
        """
        cost = self.evaluation_seconds
        is_soon_over = self.total_steps is not None and (self.total_steps - step) * self.step_seconds < cost
        allowed = self._for_evaluations() * self.elapsed() / self.budget
        fits = self._evaluated_seconds + cost <= allowed and not is_soon_over
        (decision,) = self.share([float(fits and (epoch + 1) % self.shape.evaluate_every == 0)])
        return decision > 0

    def estimate_evaluation(self, seconds: float, *, measured_in: float) -> None:
        """Store an estimate of the duration of an evaluation, for the time before the first evaluation.

        Args:
            seconds: estimated duration.
            measured_in: time that the estimate took, which is no part of the next step; seconds.
        """
        self.evaluation_seconds = seconds
        if self._last_step_end is not None:
            self._last_step_end += measured_in

    def begin_evaluation(self) -> None:
        """Start to measure an evaluation."""
        self._evaluating_since = self.clock()

    def end_evaluation(self) -> None:
        """Measure an evaluation. Its time is no part of the next step."""
        if self._evaluating_since is None:
            return
        self.evaluation_seconds = self.clock() - self._evaluating_since
        self.evaluations += 1
        self._evaluated_seconds += self.evaluation_seconds
        self._evaluating_since = None
        if self._last_step_end is not None:
            self._last_step_end += self.evaluation_seconds

    def state_dict(self) -> dict[str, Any]:
        """Return the plan and the used time, as plain values."""
        return {
            "budget": self.budget,
            "seconds": self.elapsed(),
            "total_steps": self.total_steps,
            "progress": self.progress,
            "warmup": self.warmup,
            "evaluation_seconds": self.evaluation_seconds,
            "evaluated_seconds": self._evaluated_seconds,
            "evaluations": self.evaluations,
            "startup_seconds": self.startup_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the plan of a checkpoint. Another budget makes a new plan after the first steps."""
        self._used_before = state["seconds"]
        self.progress, self.warmup = state["progress"], state["warmup"]
        self.evaluation_seconds, self._evaluated_seconds = state["evaluation_seconds"], state["evaluated_seconds"]
        self.evaluations, self.startup_seconds = state["evaluations"], state["startup_seconds"]
        self._is_extended = state["budget"] != self.budget
        self.total_steps = None if self._is_extended else state["total_steps"]
