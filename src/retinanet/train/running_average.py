"""Running average of the weights (exponential moving average, EMA)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning.pytorch.callbacks import WeightAveraging

if TYPE_CHECKING:
    from torch import Tensor


class RunningAverage(WeightAveraging):
    """Average the weights exponentially, with a decay that grows from 0.1 to `decay`.

    After n updates, decay_n = min(decay, (1 + n) / (10 + n)). The small first decays reduce the influence of the
    initial weights in a short training run. Buffers such as BatchNorm statistics are copied, because they already are
    averages.

    Args:
        decay: largest decay, in (0, 1).
    """

    def __init__(self, *, decay: float) -> None:
        def update(average: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
            n = float(count)
            torch._foreach_lerp_(average, current, 1 - min(decay, (1 + n) / (10 + n)))

        super().__init__(use_buffers=False, multi_avg_fn=update)
