"""What commands share of the terminal: progress lines and bars, and the tables of findings."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from retinanet.progress import progress_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from retinanet.analysis.finding import Finding
    from retinanet.formats.records import DetectionData


class _TerminalHandler(logging.Handler):
    """Prints INFO lines on stdout as they are, and warnings on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line; the streams of this moment are used, so that a caller may redirect them."""
        if record.levelno >= logging.WARNING:
            print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr, flush=True)
        else:
            print(record.getMessage(), flush=True)


def show_progress() -> None:
    """Print progress lines from now on. A second call changes nothing."""
    if not any(isinstance(handler, _TerminalHandler) for handler in progress_log.handlers):
        progress_log.addHandler(_TerminalHandler())
    progress_log.setLevel(logging.INFO)
    progress_log.propagate = False


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar with the remaining time on stderr if it is a terminal; yield the function that advances it by one."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def print_faults(console: Console, sets: Sequence[DetectionData]) -> int:
    """Print every fault of the datasets, and return how many there are."""
    faults = [fault for data in sets for fault in data.faults]
    for fault in faults:
        console.print(f"fault: {fault}", markup=False, highlight=False, soft_wrap=True)
    if faults:
        console.print(f"{len(faults):,} {'fault' if len(faults) == 1 else 'faults'}; the rest is without them.\n")
    return len(faults)


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print findings, one below the other."""
    for finding in findings:
        console.print(str(finding), markup=False, highlight=False, soft_wrap=True)
