"""The running average of the weights (EMA)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning.pytorch.callbacks import WeightAveraging

if TYPE_CHECKING:
    from torch import Tensor


class RunningAverage(WeightAveraging):
    """Exponential moving average of the weights, with a decay that grows from 0.1 as the average fills.

    decay_n = min(decay, (1 + n) / (10 + n)) after n updates, so that a short run is not held back by its first weights.
    Buffers (BatchNorm's statistics) are copied, not averaged: they are averages already.
    """

    def __init__(self, *, decay: float) -> None:
        def update(average: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
            n = float(count)
            torch._foreach_lerp_(average, current, 1 - min(decay, (1 + n) / (10 + n)))

        super().__init__(use_buffers=False, multi_avg_fn=update)
