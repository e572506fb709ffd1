"""The live line of a training run on a terminal: epoch, step, loss, best AP, images per second, time left."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from retinanet.progress import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from retinanet.progress import TrainingStatus

SECONDS_BETWEEN: Final = 0.1
"""Shortest time between two updates of the line, seconds."""


def is_live(stream: Any) -> bool:
    """Return whether a stream can show a line that changes: a terminal, and no notebook or log of a CI system.

    A notebook gives the commands of its cells (`!retinanet train`) a terminal whose control characters it prints.
    """
    hidden = "JPY_PARENT_PID" in os.environ or "CI" in os.environ or os.environ.get("TERM") == "dumb"
    try:
        return bool(stream.isatty()) and not hidden
    except (AttributeError, ValueError):  # pythonw's None, or a closed stream
        return False


@contextlib.contextmanager
def live_status() -> Iterator[Callable[[TrainingStatus], None]]:
    """Show the status of a training run in the last line of a terminal, if stdout is a terminal.

    All other output of the process appears above the line. The line is drawn by the thread that trains, so that no
    other thread holds a lock while workers are forked.
    """
    if not is_live(sys.stdout):
        yield lambda status: None
        return
    console = _UnwrappedConsole()
    live = Live(
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stderr=is_live(sys.stderr),
        vertical_overflow="crop",
    )
    last, was_evaluating = 0.0, False

    def show(status: TrainingStatus) -> None:
        nonlocal last, was_evaluating
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN and status.is_evaluating == was_evaluating:
            return
        last, was_evaluating = now, status.is_evaluating
        with contextlib.suppress(OSError, ValueError):  # a closed terminal must not end a training run
            live.update(status_line(status), refresh=True)

    try:
        with contextlib.suppress(OSError, ValueError):
            live.start(refresh=True)  # before workers are forked, which inherit the redirection of their output
        yield show
    finally:
        with contextlib.suppress(OSError, ValueError):
            live.stop()


def status_line(status: TrainingStatus) -> Text:
    """Return a status as one line, which the console cuts at the width of the terminal."""
    epochs = "" if status.epochs is None else f"/{max(status.epochs, status.epoch)}"
    what = "evaluating" if status.is_evaluating else "step"
    parts = [f"epoch {status.epoch}{epochs}", f"{what} {status.step}/{status.steps}"]
    if status.loss is not None:
        parts.append(f"loss {status.loss:.4f}")
    if status.best_ap is not None:
        parts.append(f"best AP {status.best_ap:.3f}")
    if status.images_per_second is not None and not status.is_evaluating:
        parts.append(f"{status.images_per_second:.3g} images/s")
    if status.seconds_left is not None:
        parts.append(f"{format_duration(status.seconds_left)} left")
    return Text("  ".join(parts), overflow="ellipsis", no_wrap=True, style="cyan")


class _UnwrappedConsole(Console):
    """A console that leaves lines as they are. Rich would cut a path or a command at the width of the terminal.

    The cursor stays visible: a process that is killed could not show it again.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print without line breaks, markup and highlighting."""
        super().print(*objects, **{"soft_wrap": True, "markup": False, "highlight": False, **options})

    def show_cursor(self, show: bool = True) -> bool:
        """Leave the cursor as it is."""
        return False
