"""Overfitting: a validation loss that rises while the training loss falls, in the rows of metrics.csv."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

LEAST_EVALUATIONS: Final = 6
"""Smallest number of evaluations that shows a trend."""
LEAST_RISE: Final = 0.05
"""Smallest rise of the validation loss, relative to its minimum, that is reported."""
NOISE_FACTOR: Final = 3.0
"""Smallest rise of the validation loss that is reported, in standard deviations of a single evaluation."""
AP_RISE: Final = 0.01
"""Smallest rise of AP that counts as a rise."""

Row = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Overfitting:
    """A validation loss that has risen while the training loss fell.

    Args:
        epoch: epoch with the lowest validation loss, from 1.
        rise: rise of the smoothed validation loss since that epoch, relative to its value there.
        fall: fall of the smoothed training loss since that epoch, relative to its value there.
        ap_before: highest AP up to that epoch; None without AP.
        ap_after: highest AP after that epoch; None without AP.
        best_epoch: epoch with the highest AP, from 1; None without AP.
    """

    epoch: int
    rise: float
    fall: float
    ap_before: float | None = None
    ap_after: float | None = None
    best_epoch: int | None = None

    @property
    def ap_rises(self) -> bool:
        """Whether AP has risen after the epoch with the lowest validation loss."""
        return self.ap_before is not None and self.ap_after is not None and self.ap_after > self.ap_before + AP_RISE

    def sentence(self) -> str:
        """Return the observation and the advice as sentences."""
        start = (
            f"The validation loss has risen by {100 * self.rise:.0f} % since epoch {self.epoch}, while the training "
            f"loss fell by {100 * self.fall:.0f} %"
        )
        if self.ap_rises:
            return (
                f"{start}: the model begins to overfit. AP still rose after epoch {self.epoch}, from "
                f"{self.ap_before:.3f} to {self.ap_after:.3f} in epoch {self.best_epoch}, so fewer epochs would not "
                "improve AP. Add images or use more augmentation."
            )
        return (
            f"{start}: the model overfits. Train for about {self.epoch} {'epoch' if self.epoch == 1 else 'epochs'}, "
            "add images, or use more augmentation."
        )


def find_overfitting(rows: Sequence[Row]) -> Overfitting | None:
    """Return the overfitting that the rows of metrics.csv show; None if they show none.

    The values of an epoch are its validation loss and its mean training loss. Each value is replaced by the median of
    itself and its two neighbours, so that a single outlier has no effect. With v the smaller of the last two smoothed
    validation losses and b the epoch of the smallest one, a model overfits if:

    - there are `LEAST_EVALUATIONS` or more evaluations, and at least two come after b;
    - v - v(b) is at least `LEAST_RISE` v(b), and at least `NOISE_FACTOR` s. The standard deviation s of a single
      evaluation is estimated from the differences of consecutive evaluations: their median absolute deviation times
      1.4826 (the factor of a normal distribution), divided by the square root of 2;
    - the smoothed training loss is lower at the end than at b.

    AP has no part in the decision, because AP may rise while the validation loss rises.

    Args:
        rows: rows of metrics.csv, column name -> number or None. Epochs start at 0.
    """
    validation, training = epoch_means(rows, "val_loss"), epoch_means(rows, "loss")
    epochs = sorted(validation.keys() & training.keys())
    if len(epochs) < LEAST_EVALUATIONS:
        return None
    raw = [validation[epoch] for epoch in epochs]
    val, train = _smooth(raw), _smooth([training[epoch] for epoch in epochs])
    best = min(range(len(val)), key=val.__getitem__)
    rise, fall = min(val[-2:]) - val[best], train[best] - train[-1]
    if len(val) - 1 - best < 2 or val[best] <= 0 or fall <= 0:
        return None
    if rise < max(LEAST_RISE * val[best], NOISE_FACTOR * _noise(raw)):
        return None
    aps = {epoch: ap for epoch, ap in epoch_means(rows, "AP").items() if ap >= 0}
    before, after = ([ap for e, ap in aps.items() if (e > epochs[best]) is later] for later in (False, True))
    return Overfitting(
        epoch=epochs[best] + 1,
        rise=val[-1] / val[best] - 1,
        fall=fall / train[best],
        ap_before=max(before, default=None),
        ap_after=max(after, default=None),
        best_epoch=max(aps, key=aps.__getitem__) + 1 if aps else None,
    )


def epoch_means(rows: Sequence[Row], column: str) -> dict[int, float]:
    """Return the mean of the finite values of a column in each epoch. Epochs start at 0 and rise."""
    values: dict[int, list[float]] = {}
    for row in rows:
        epoch, value = row.get("epoch"), row.get(column)
        if epoch is not None and value is not None and math.isfinite(value):
            values.setdefault(int(epoch), []).append(value)
    return {epoch: statistics.fmean(values[epoch]) for epoch in sorted(values)}


def _smooth(values: Sequence[float]) -> list[float]:
    """Return the median of each value and its neighbours. The first and the last value have one neighbour: the mean."""
    return [statistics.median(values[max(0, i - 1) : i + 2]) for i in range(len(values))]


def _noise(values: Sequence[float]) -> float:
    """Return the standard deviation of a single value around a smooth course."""
    steps = [after - before for before, after in itertools.pairwise(values)]
    middle = statistics.median(steps)
    return 1.4826 * statistics.median([abs(step - middle) for step in steps]) / math.sqrt(2)
