"""Output that several commands share: progress lines and bars, JSON, faults and findings."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from retinanet.files import STDOUT, valid_text, write_atomically
from retinanet.progress import progress_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from rich.console import Console

    from retinanet.analysis.finding import Finding
    from retinanet.analysis.next_steps import NextStep
    from retinanet.formats.records import DetectionData


def print_any_text() -> None:
    """Let stdout and stderr print every text from now on: characters that the encoding lacks as \\uXXXX.

    On Windows, a redirected stdout is encoded in the code page of the machine, which lacks most characters.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not pythonw's None, nor a notebook's stream
            stream.reconfigure(errors="backslashreplace")


def flush_stdout() -> OSError | None:
    """Write what stdout still holds. If that fails, discard it and return the error: a closed pipe or a full disk.

    Otherwise Python would print "Exception ignored" with a traceback at its exit.
    """
    if sys.stdout is None:  # pythonw
        return None
    try:
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


class _TerminalHandler(logging.Handler):
    """Prints INFO lines on stdout unchanged, and warnings on stderr with their level."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line to the streams that `sys` holds now, so that redirecting `sys.stdout` has an effect.

        A line that cannot be printed is dropped: a closed pipe or a full disk must not end a training run.
        """
        with contextlib.suppress(OSError, ValueError):
            if record.levelno >= logging.WARNING:
                print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr, flush=True)
            else:
                print(record.getMessage(), flush=True)


def show_progress() -> None:
    """Print the program's progress lines from now on. A second call has no effect."""
    if not any(isinstance(handler, _TerminalHandler) for handler in progress_log.handlers):
        progress_log.addHandler(_TerminalHandler())
    progress_log.setLevel(logging.INFO)
    progress_log.propagate = False


def print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning of Python on stderr, without a line of source code. It replaces `warnings.showwarning`.

    `warnings.formatwarning` would not last: Lightning replaces it when it is imported.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a closed stream, or pythonw's None
        sys.stderr.write(f"warning: {message}\n")


@contextlib.contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on stderr, if stderr is a terminal. Yield a function that advances the bar by one item.

    Args:
        what: text beside the bar.
        total: number of items.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from retinanet.commands.live_status import is_live

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not is_live(sys.stderr)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def result_console(json_file: Path | None) -> Console:
    """Return the console for a command's results: stderr with `--json -`, which keeps stdout for the JSON alone."""
    from rich.console import Console

    return Console(stderr=json_file == STDOUT)


def write_json(document: dict[str, Any], json_file: Path | None) -> None:
    """Write a document to the file that `--json` names: to stdout for `-`, and nowhere without `--json`."""
    if json_file is None:
        return
    text = valid_text(json.dumps(document, indent=2, ensure_ascii=False)) + "\n"
    if json_file != STDOUT:
        write_atomically(json_file, text)
    elif _can_print(text):
        print(text, end="", flush=True)
    else:
        print(json.dumps(json.loads(text), indent=2), flush=True)  # in ASCII


def _can_print(text: str) -> bool:
    """Return whether the encoding of stdout has all characters of a text."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def print_faults(console: Console, sets: Sequence[DetectionData]) -> int:
    """Print the faults of the datasets: see `list_faults`. Return the number of faults."""
    from retinanet.formats.records import list_faults

    faults = [fault for data in sets for fault in data.faults]
    for line in list_faults(faults):
        console.print(
            line if line.startswith("  ") else f"fault: {line}", markup=False, highlight=False, soft_wrap=True
        )
    if faults:
        count = f"{len(faults):,} {'fault' if len(faults) == 1 else 'faults'}"
        console.print(f"{count}: these images and annotations are left out of all numbers below.\n", soft_wrap=True)
    return len(faults)


def print_next_steps(steps: Sequence[NextStep], console: Console | None = None) -> None:
    """Print commands that are useful next, each on a line of its own for copying.

    Args:
        steps: the commands.
        console: console of the command's results, see `result_console`; by default stdout.
    """
    for step in steps:
        print(f"next: {step.reason}\n  {step.command}", file=None if console is None else console.file, flush=True)


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print findings, one per line."""
    for finding in findings:
        console.print(str(finding), markup=False, highlight=False, soft_wrap=True)
