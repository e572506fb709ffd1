"""Progress of long operations: log lines, bars, training status. This module prints nothing; its callers decide."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

progress_log: Final = logging.getLogger("retinanet.progress")
"""Logger of progress lines, such as the losses of each epoch. The command line prints INFO on stdout and WARNING on
stderr. In Python, `logging.basicConfig(level=logging.INFO)` shows the lines."""


class ProgressBar(Protocol):
    """A context manager that opens a progress bar and yields a function that advances the bar by one step."""

    def __call__(self, what: str, total: int) -> AbstractContextManager[Callable[[], None]]:
        """Open a bar with the label `what` and `total` steps."""


@contextmanager
def no_progress_bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Open a progress bar that shows nothing."""
    yield lambda: None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingStatus:
    """The state of a training run at one moment.

    Args:
        epoch: number of the epoch, from 1.
        epochs: number of epochs; None if it is not planned yet.
        step: number of steps done in this epoch; in an evaluation, the number of batches done.
        steps: number of steps of this epoch, or of batches of the evaluation.
        is_evaluating: whether the validation data is evaluated.
        loss: latest training loss that was read from the device; None before the first reading.
        best_ap: highest AP so far; None before the first evaluation.
        images_per_second: number of trained images per second, on all ranks; None before the first step.
        seconds_left: estimate of the remaining time, seconds; None before the first step.
    """

    epoch: int
    epochs: int | None
    step: int
    steps: int
    is_evaluating: bool = False
    loss: float | None = None
    best_ap: float | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None


class LiveStatus(Protocol):
    """A context manager that opens a display of a training run and yields a function that shows a status."""

    def __call__(self) -> AbstractContextManager[Callable[[TrainingStatus], None]]:
        """Open the display."""


@contextmanager
def no_live_status() -> Iterator[Callable[[TrainingStatus], None]]:
    """Open a display of a training run that shows nothing."""
    yield lambda status: None


def format_duration(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds (1:02:03), or as minutes and seconds (2:03)."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
