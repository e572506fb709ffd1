"""Plan the training runs of `retinanet prescribe` from measured durations, so that all fit into the given time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from retinanet.errors import ConfigError
from retinanet.study.candidates import Candidate, without

MIN_STEPS: Final = 40
"""Fewest steps of a run: with fewer, AP is close to 0 for every set-up."""
ENOUGH_STEPS: Final = 100
"""Steps from which a fourth seed is better spent time than longer runs."""
MANY_STEPS: Final = 300
"""Steps from which up to `MAX_SEEDS` seeds, or a screening of several candidates of a cause, are better spent time than
longer runs."""
MAX_STEPS: Final = 1000
"""Most steps of a run."""
MIN_SEEDS: Final = 3
"""Fewest seeds of a comparison."""
MAX_SEEDS: Final = 6
"""Most seeds of a comparison."""


@dataclass(frozen=True, kw_only=True)
class Durations:
    """Measured durations of the default.

    Args:
        step: one training step, seconds.
        fixed: everything else of a run (data, network, evaluation), seconds.
    """

    step: float
    fixed: float

    def run(self, steps: int, cost: float = 1.0) -> float:
        """Return the duration of a run whose steps take `cost` times as long as those of the default, seconds."""
        return self.fixed + steps * self.step * cost


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Training runs that fit into the time.

    Args:
        steps: optimiser steps of every run.
        seeds: seeds of every comparison.
        candidates: candidates that are compared, in the order of their priority.
    """

    steps: int
    seeds: int
    candidates: tuple[Candidate, ...]

    @property
    def screened(self) -> bool:
        """Whether a first seed selects among the candidates of a cause; its runs are then no evidence."""
        return len(self.candidates) > len(causes(self.candidates))

    def runs(self) -> list[float]:
        """Return the cost of a step of each planned run, relative to the default.

        The runs are: the screening, then for each seed the default and the best candidate of each cause, and at last
        the combination of several changes for each seed.
        """
        screening = [1.0, *(c.cost for c in self.candidates)] if self.screened else []
        finalists = [max(c.cost for c in self.candidates if c.cause == cause) for cause in causes(self.candidates)]
        combination = [max(finalists)] if len(finalists) > 1 else []
        return [*screening, *[1.0, *finalists, *combination] * self.seeds]

    def seconds(self, durations: Durations) -> float:
        """Return the duration of all planned runs, seconds."""
        return sum(durations.run(self.steps, cost) for cost in self.runs())


def plan_runs(candidates: Sequence[Candidate], durations: Durations, *, seconds: float) -> Plan:
    """Return the plan that fits into the time. Candidates are dropped, the last ones first, before seeds fall below 3.

    Without a candidate nothing is compared: three seeds and `MANY_STEPS` suffice, even if there is more time.

    Args:
        candidates: candidates in the order of their priority.
        durations: measured durations.
        seconds: time for all runs, seconds.

    Raises:
        ConfigError: the time does not suffice for the default and one candidate of each cause.
    """
    lists = [tuple(candidates)]
    while len(lists[-1]) > len(causes(lists[-1])):
        lists.append(tuple(without(list(lists[-1]))))
    options = [(lists[0], seeds, MANY_STEPS) for seeds in range(MAX_SEEDS, MIN_SEEDS + 1, -1)]
    # A screening is one seed: in short runs, it selects among similar candidates by chance. Its time is better spent on
    # seeds for the first candidate.
    options += [(kept, MIN_SEEDS + 1, MANY_STEPS) for kept in lists[:-1]]
    options += [(lists[-1], MIN_SEEDS + 1, ENOUGH_STEPS), (lists[-1], MIN_SEEDS, ENOUGH_STEPS)]
    options += [(lists[-1], MIN_SEEDS, MIN_STEPS)]
    most = MAX_STEPS
    if not candidates:
        options, most = options[-2:], MANY_STEPS  # those with `MIN_SEEDS`
    for kept, seeds, least in options:
        plan = Plan(steps=0, seeds=seeds, candidates=kept)
        per_step = sum(plan.runs()) * durations.step
        steps = int((seconds - len(plan.runs()) * durations.fixed) / per_step)
        if steps >= least:
            return dataclasses.replace(plan, steps=min(steps, most))
    needed = dataclasses.replace(plan, steps=MIN_STEPS).seconds(durations)
    raise ConfigError(
        f"minutes must leave at least {needed / 60:.1f} minutes for {len(plan.runs())} training runs of {MIN_STEPS} "
        f"steps ({durations.step:.2f} s per step), found {seconds / 60:.1f}. Give more --minutes, a smaller "
        "--image-size or a faster --device"
    )


def causes(candidates: Sequence[Candidate]) -> list[str]:
    """Return the causes of candidates without repetition, in their order."""
    return list(dict.fromkeys(candidate.cause for candidate in candidates))
