"""Compare a set-up with a reference: differences paired by seed, their intervals, and what these support.

Values of AP lie in [0, 1]. Texts give differences in AP points, that is, in percent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retinanet.study.outcomes import Outcome
from retinanet.study.statistics import PairedDifference, paired_difference


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A set-up compared with a reference that was trained with the same seeds.

    Args:
        outcome: runs of the set-up.
        reference: runs of the reference.
        image_interval: 95 % interval of the difference over resampled validation images, see
            `evaluate.bootstrap.image_interval`; None if it was not computed.
    """

    outcome: Outcome
    reference: Outcome
    image_interval: tuple[float, float] | None = None

    @property
    def difference(self) -> PairedDifference:
        """Difference in AP, paired by seed. A run that diverged counts as AP 0."""
        return paired_difference([run.ap for run in self.outcome.runs], [run.ap for run in self.reference.runs])

    def class_difference(self, names: Sequence[str]) -> PairedDifference | None:
        """Return the difference in the mean AP of some classes, paired by seed; None if a run lacks a class."""
        values = [_class_means(outcome, names) for outcome in (self.outcome, self.reference)]
        if values[0] is None or values[1] is None:
            return None
        return paired_difference(values[0], values[1])

    @property
    def verdict(self) -> str:
        """What the interval paired by seed supports, in one or two words."""
        if len(self.outcome.runs) < 2:
            return "one seed"
        if not self.difference.is_supported:
            return "not supported"
        return "better" if self.difference.mean > 0 else "worse"

    def sentence(self) -> str:
        """Return the result of the comparison as a sentence."""
        difference, seeds = self.difference, f"paired over {count(len(self.outcome.runs), 'seed')}"
        names = self.outcome.variant.label, self.reference.variant.label
        if not difference.is_supported:
            interval = points_interval(difference.low, difference.high)
            return (
                f"No difference between {names[0]} and {names[1]} was found: {points(difference.mean)} AP points (95 % "
                f"interval {interval}, {seeds}). These runs could have shown a difference of "
                f"{100 * difference.detectable:.1f} AP points or more."
            )
        sentence = f"{names[0]} is {_by(difference, names[1])}, {seeds})."
        if self.image_interval is not None and self.image_interval[0] <= 0 <= self.image_interval[1]:
            bounds = points_interval(*self.image_interval)
            sentence += f" Other validation images could reverse this difference: resampled images give {bounds}."
        return sentence

    def group_sentences(self, groups: Mapping[str, Sequence[str]]) -> Iterable[str]:
        """Yield a sentence for each group of classes whose mean AP differs, by the name of the group."""
        for group, names in groups.items():
            difference = self.class_difference(names)
            if difference is not None and difference.is_supported:
                yield (
                    f"On the {group} classes ({', '.join(names)}), {self.outcome.variant.label} is "
                    f"{_by(difference, self.reference.variant.label)})."
                )

    def to_json(self, classes: Sequence[str], groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Return the differences as plain values for JSON: of AP, of each class, and of each group of classes."""
        by_class = {name: self.class_difference([name]) for name in classes}
        by_group = {group: self.class_difference(names) for group, names in groups.items()}
        return {
            **self.difference.to_json(),
            "image_interval": None if self.image_interval is None else list(self.image_interval),
            "per_class": {name: found.to_json() for name, found in by_class.items() if found is not None},
            "groups": {name: found.to_json() for name, found in by_group.items() if found is not None},
        }


def points(value: float) -> str:
    """Return a difference of AP in AP points, with its sign."""
    return f"{100 * value:+.1f}"


def points_interval(low: float, high: float) -> str:
    """Return an interval of a difference in AP points; a dash for an interval without bounds."""
    return f"{100 * low:.1f} to {100 * high:.1f}" if math.isfinite(low) else "–"


def with_interval(difference: PairedDifference | None) -> str:
    """Return a difference in AP points with its interval, for a table; a dash for None."""
    if difference is None:
        return "–"
    if not math.isfinite(difference.low):
        return points(difference.mean)
    return f"{points(difference.mean)} ({points_interval(difference.low, difference.high)})"


def count(number: int, what: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _class_means(outcome: Outcome, names: Sequence[str]) -> list[float] | None:
    """Return the mean AP of some classes in each run; None if the AP of a class is unknown."""
    values = [[run.class_ap(name) for name in names] for run in outcome.runs]
    if not names or any(ap is None for aps in values for ap in aps):
        return None
    return [float(np.mean([ap for ap in aps if ap is not None])) for aps in values]


def _by(difference: PairedDifference, reference: str) -> str:
    """Return "better than reference by 3.2 AP points (95 % interval 1.1 to 5.3", with positive numbers."""
    low, high = sorted((abs(difference.low), abs(difference.high)))
    word = "better" if difference.mean > 0 else "worse"
    interval = points_interval(low, high)
    return f"{word} than {reference} by {100 * abs(difference.mean):.1f} AP points (95 % interval {interval}"
