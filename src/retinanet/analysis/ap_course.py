"""The course of AP over the evaluations of a training run, in the rows of metrics.csv."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

RISE: Final = 0.01
"""AP counts as still rising if the last evaluations improve it by more than this value."""

Row = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ApCourse:
    """AP over the evaluations of a training run.

    Args:
        best: highest AP.
        best_epoch: epoch with the highest AP, from 1.
        last: AP of the last evaluation.
        last_epoch: epoch of the last evaluation, from 1.
        recent: number of evaluations that count as the last ones: a quarter of all evaluations, at least 2.
        gain: highest AP of the last evaluations minus the highest AP before; None without evaluations before.
    """

    best: float
    best_epoch: int
    last: float
    last_epoch: int
    recent: int
    gain: float | None

    @property
    def is_rising(self) -> bool:
        """Whether the last evaluations improved AP by more than `RISE`."""
        return self.gain is not None and self.gain > RISE and not self.has_fallen

    @property
    def has_fallen(self) -> bool:
        """Whether the last evaluation has an AP of more than twice `RISE` below the best one."""
        return self.best - self.last > 2 * RISE


def ap_course(rows: Sequence[Row]) -> ApCourse | None:
    """Return the course of AP in the rows of metrics.csv; None if no row has an AP. Epochs start at 0 in the file."""
    found: dict[int, float] = {}
    for row in rows:
        epoch, ap = row.get("epoch"), row.get("AP")
        if epoch is not None and ap is not None and math.isfinite(ap) and ap >= 0:  # -1: no objects
            found[int(epoch) + 1] = ap
    if not found:
        return None
    evaluated = list(found.items())
    best_epoch, best = max(evaluated, key=lambda pair: pair[1])
    last_epoch, last = evaluated[-1]
    recent = max(2, len(evaluated) // 4)
    aps = list(found.values())
    gain = max(aps[-recent:]) - max(aps[:-recent]) if len(aps) > recent else None
    return ApCourse(best=best, best_epoch=best_epoch, last=last, last_epoch=last_epoch, recent=recent, gain=gain)
