"""Files that a run writes while it trains, and the error where its folder cannot be written."""

from __future__ import annotations

import csv
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from retinanet.errors import UserError
from retinanet.files import write_atomically
from retinanet.progress import progress_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class OutputError(UserError):
    """The run's folder cannot be written: a full disk, a quota, a folder made read-only under way."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what could not be written and how to go on, where the system only says why."""
    try:
        yield
    except OSError as error:
        raise output_error(error, path) from error


def output_error(error: OSError, path: Path) -> OutputError:
    """Return the error in words, and what is safe."""
    folder = path if path.is_dir() else path.parent
    saved = folder / "last.ckpt"
    safe = f"{saved} is whole" if saved.exists() else "nothing was saved yet"
    how = f"when it can be written again, `retinanet train --resume -o {folder}` goes on"
    return OutputError(f"{path} cannot be written: {error.strerror or error}. {safe}; {how}")


def write_output(path: Path, content: bytes | str) -> None:
    """Write a whole file of the run. Raises `OutputError`; what was there before stays as it was."""
    with writing(path):
        write_atomically(path, content)


class Table:
    """A CSV file of a run that grows row by row; a checkpoint remembers how far it was written.

    Args:
        path: of the file.
        columns: of it.
    """

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path = path
        self.columns = columns

    def begin(self) -> None:
        """Write the header, over whatever is there."""
        write_output(self.path, ",".join(self.columns) + "\r\n")

    def add(self, row: dict[str, Any]) -> None:
        """Write a row."""
        with writing(self.path), self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def size(self) -> int:
        """Return the bytes written so far, which are on the disk then."""
        if not self.path.exists():
            return 0
        with writing(self.path), self.path.open("rb+") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def cut(self, size: int) -> None:
        """Drop what was written after a checkpoint: a run that goes on from it writes these rows anew."""
        if not self.path.exists() or self.path.stat().st_size < size or not size:
            self.begin()  # the user removed it; the rows from here on are better than none
            return
        with writing(self.path):
            os.truncate(self.path, size)


def report_progress(line: str) -> None:
    """Log a line for the user, on the first rank only."""
    if rank_zero():
        progress_log.info(line)


def rank_zero() -> bool:
    """Return whether this is the process that writes the run's files."""
    from lightning.pytorch.utilities import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0
