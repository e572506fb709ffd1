"""The pace of a training run: images per second, and an estimate of the remaining time."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW: Final = 50
"""Number of latest batches whose mean duration is used."""
EVALUATION_SHARE: Final = 1 / 3
"""Estimated duration of an evaluated batch before the first evaluation, relative to a trained batch: of the forward
pass, the gradient of the activations and the gradient of the weights, an evaluation has only the forward pass."""


class Pace:
    """Measure the batches and the evaluations of a training run.

    Args:
        clock: function that returns the time, seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._batches: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._batch_start: float | None = None
        self._is_first = True
        self._evaluation_start: float | None = None
        self._evaluation_seconds: float | None = None

    def start(self) -> None:
        """Start to measure: the next batch begins now. What came before, such as an evaluation, is no part of it."""
        self._batch_start = self.clock()

    def end_batch(self, images: int) -> None:
        """Measure a batch. The first batch of a run, which starts workers and compiles kernels, is replaced by others.

        Args:
            images: number of images of the batch, on all ranks.
        """
        now = self.clock()
        if self._batch_start is not None:
            if len(self._batches) == 1 and self._is_first:
                self._batches.clear()
                self._is_first = False
            self._batches.append((now - self._batch_start, images))
        self._batch_start = now

    def begin_evaluation(self) -> None:
        """Start to measure an evaluation."""
        self._evaluation_start = self.clock()

    def end_evaluation(self) -> None:
        """Measure an evaluation. The next batch begins now."""
        if self._evaluation_start is not None:
            self._evaluation_seconds = self.clock() - self._evaluation_start
        self._evaluation_start = None
        self.start()

    @property
    def images_per_second(self) -> float | None:
        """Number of trained images per second; None before the first batch."""
        seconds = sum(seconds for seconds, _ in self._batches)
        return sum(images for _, images in self._batches) / seconds if seconds > 0 else None

    def seconds_left(self, *, batches: int, evaluations: int, evaluation_batches: float) -> float | None:
        """Return an estimate of the remaining time in seconds; None before the first batch.

        Args:
            batches: number of batches that are left to train.
            evaluations: number of evaluations that are left.
            evaluation_batches: number of batches of an evaluation.
        """
        if not self._batches:
            return None
        per_batch = sum(seconds for seconds, _ in self._batches) / len(self._batches)
        evaluation = self._evaluation_seconds
        if evaluation is None:
            evaluation = evaluation_batches * per_batch * EVALUATION_SHARE
        return batches * per_batch + (evaluations * evaluation if math.isfinite(evaluation) else 0.0)
