"""Decide from paired training runs which changes of the default are recommended. Pure functions of metrics.

A change is supported if the interval of the paired difference of its target metric lies above 0 and no guard metric is
hurt. With m tested changes, each interval has the confidence 1 - 0.05 / m (Bonferroni), so that a probe without any
effect recommends something in less than 5 % of the cases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from retinanet.study.candidates import AP, Candidate, value_of
from retinanet.study.generalization import Generalization
from retinanet.study.outcomes import Run
from retinanet.study.statistics import PairedDifference, paired_difference

ERROR_RATE: Final = 0.05
"""Probability of any unfounded recommendation."""
NEGLIGIBLE: Final = 0.005
"""Smallest difference of AP that matters: smaller gains are not recommended, smaller losses do not count."""
HURT: Final = 0.02
"""Mean loss of a guard metric that counts even if its interval contains 0: few seeds give wide intervals."""
UNSEEN: Final = 0.25
"""Share of AP on training images that is lost on validation images, from which more images are the answer."""
NOTHING: Final = "The measurements suggest no change of the options."
"""The answer of data without a visible problem."""
WORSE: Final = 0.02
"""Loss in the screening from which no candidate of a cause goes on."""

Answer = Literal["change", "collect images", "keep the default"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A change and the default, trained with the same seeds.

    Args:
        candidate: the change.
        target: metric that must rise.
        values, reference: target metric of each seed, with the change and without.
        difference: paired difference of the target metric.
        guards: paired difference of each guard metric.
        means: mean of each metric over the seeds, without the change and with it.
        confidence: confidence of the intervals.
    """

    candidate: Candidate
    target: str
    values: tuple[float, ...]
    reference: tuple[float, ...]
    difference: PairedDifference
    guards: dict[str, PairedDifference]
    means: dict[str, tuple[float, float]]
    confidence: float

    @property
    def gains(self) -> bool:
        """Whether the interval of the target metric lies above 0, and the gain is not negligible."""
        return self.difference.low > 0 and self.difference.mean >= NEGLIGIBLE

    @property
    def hurt(self) -> tuple[str, ...]:
        """Guard metrics that fall clearly: see `is_hurt`."""
        return tuple(name for name, difference in self.guards.items() if is_hurt(difference))

    @property
    def is_supported(self) -> bool:
        """Whether the runs support the change."""
        return self.gains and not self.hurt

    @property
    def verdict(self) -> str:
        """The decision in words."""
        if self.is_supported:
            return "supported"
        if self.gains:
            return f"not supported: {' and '.join(self.hurt)} fell"
        if self.difference.high < 0:
            return "worse"
        return "not supported: the interval contains 0" if self.difference.low <= 0 else "not supported: negligible"

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain values for JSON."""
        return {
            "candidate": self.candidate.name,
            "target": self.target,
            "values": list(self.values),
            "default": list(self.reference),
            "difference": dataclasses.asdict(self.difference),
            "guards": {name: dataclasses.asdict(difference) for name, difference in self.guards.items()},
            "means": {name: list(means) for name, means in self.means.items()},
            "confidence": self.confidence,
            "supported": self.is_supported,
            "verdict": self.verdict,
        }


def is_hurt(difference: PairedDifference) -> bool:
    """Return whether a guard metric falls clearly: by `HURT` on average, or with an interval below 0 and by more than
    `NEGLIGIBLE`.
    """
    return difference.mean < -HURT or (difference.high < 0 and difference.mean < -NEGLIGIBLE)


def compare(
    candidate: Candidate,
    runs: Sequence[Run],
    reference: Sequence[Run],
    *,
    rare: tuple[str, ...],
    target: str = "",
    tested: int = 1,
) -> Comparison:
    """Compare a change with the default.

    Args:
        candidate: the change.
        runs: runs with the change.
        reference: runs of the default with the same seeds.
        rare: names of the rare classes with validation objects.
        target: metric that must rise; by default that of the candidate.
        tested: number of changes that are tested at once, m.
    """
    target, confidence = target or candidate.target, 1 - ERROR_RATE / tested
    metrics = dict.fromkeys((target, *candidate.guards))
    values = {metric: [value_of(run, metric, rare) for run in runs] for metric in metrics}
    default = {metric: [value_of(run, metric, rare) for run in reference] for metric in metrics}
    differences = {
        metric: paired_difference(values[metric], default[metric], confidence=confidence) for metric in metrics
    }
    return Comparison(
        candidate=candidate,
        target=target,
        values=tuple(values[target]),
        reference=tuple(default[target]),
        difference=differences[target],
        guards={guard: differences[guard] for guard in candidate.guards},
        means={metric: (float(np.mean(default[metric])), float(np.mean(values[metric]))) for metric in metrics},
        confidence=confidence,
    )


@dataclass(frozen=True, kw_only=True)
class Screened:
    """A candidate that competes with others of its cause, trained with one seed.

    Args:
        candidate: the change.
        gain: difference of the target metric to the default.
        guard: lowest difference of a guard metric to the default.
    """

    candidate: Candidate
    gain: float
    guard: float


def screened(candidate: Candidate, run: Run, reference: Run, *, rare: tuple[str, ...]) -> Screened:
    """Return the differences between a run with the change and a run of the default with the same seed."""

    def difference(metric: str) -> float:
        return value_of(run, metric, rare) - value_of(reference, metric, rare)

    guard = min(map(difference, candidate.guards), default=0.0)
    return Screened(candidate=candidate, gain=difference(candidate.target), guard=guard)


def select(screening: Sequence[Screened]) -> list[Candidate]:
    """Return the candidate of each cause with the highest gain, unless all candidates of the cause are clearly worse.

    A candidate whose guard metric falls by more than `HURT` is selected only if the others are worse than the default.
    """
    best: dict[str, Screened] = {}
    for one in screening:
        rank = (one.guard >= -HURT, one.gain)
        other = best.get(one.candidate.cause)
        if one.gain > -WORSE and (other is None or rank > (other.guard >= -HURT, other.gain)):
            best[one.candidate.cause] = one
    return [one.candidate for one in best.values()]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The answer of a probe.

    Args:
        answer: what to do.
        chosen: the change to make; None if the default stays.
        sentence: the answer with its evidence.
    """

    answer: Answer
    chosen: Candidate | None
    sentence: str


def decide(
    tested: Sequence[Comparison],
    combination: Sequence[Comparison] = (),
    seen: Generalization | None = None,
    *,
    screening: Sequence[Screened] = (),
) -> Decision:
    """Return the answer that the runs support.

    Several supported changes are recommended together if the combination is supported in the target metric of each of
    these. Otherwise the single change with the highest gain of AP is recommended. Without a supported change, more
    images are recommended if the default is clearly better on images that it was trained on than on others.

    Args:
        tested: comparison of each tested change with the default.
        combination: comparisons of all supported changes together with the default, one for each target metric.
        seen: AP of the default on training and on validation images.
        screening: candidates that competed for the test.
    """
    none = NOTHING
    if screening:
        gains = "; ".join(f"{one.candidate.label} {one.candidate.target} {one.gain:+.3f}" for one in screening)
        none = f"With the first seed, all candidates were clearly worse than the default: {gains}."
    if tested:
        none = f"No change is supported: {'; '.join(f'{c.candidate.label} {_gain(c)}{_fell(c)}' for c in tested)}."
    supported = [comparison for comparison in tested if comparison.is_supported]
    if len(supported) > 1 and combination and all(comparison.is_supported for comparison in combination):
        gains = "; ".join(_gain(comparison) for comparison in combination)
        chosen = combination[0].candidate
        return Decision(answer="change", chosen=chosen, sentence=f"Use {chosen.label}. Together: {gains}.")
    if supported:
        best = max(supported, key=lambda comparison: comparison.guards.get(AP, comparison.difference).mean)
        sentence = f"Use {best.candidate.label}. {_gain(best)}."
        if len(supported) > 1:
            others = ", ".join(c.candidate.label for c in supported if c is not best)
            sentence += f" The runs did not support it together with {others}."
        return Decision(answer="change", chosen=best.candidate, sentence=sentence)
    if seen is not None and needs_images(seen):
        sentence = f"Collect more images: {seen.sentence()} {none}"
        return Decision(answer="collect images", chosen=None, sentence=sentence)
    return Decision(answer="keep the default", chosen=None, sentence=f"Keep the default. {none}")


def needs_images(seen: Generalization) -> bool:
    """Return whether AP on validation images is clearly below AP on training images.

    It is lower by at least `UNSEEN` of the AP on training images on average, and the interval lies below 0.
    """
    return seen.change.high < 0 and seen.change.mean <= -UNSEEN


def format_difference(difference: PairedDifference) -> str:
    """Return a difference with its interval as text."""
    return f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"


def _gain(comparison: Comparison) -> str:
    return f"{comparison.target} {format_difference(comparison.difference)}"


def _fell(comparison: Comparison) -> str:
    return f", but {' and '.join(comparison.hurt)} fell" if comparison.gains else ""
