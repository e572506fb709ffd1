"""Files that grow during training, and the error for a run folder that cannot be written."""

from __future__ import annotations

import csv
import io
import itertools
import os
import shlex
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from retinanet.errors import UserError
from retinanet.files import write_atomically
from retinanet.progress import progress_log

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


class OutputError(UserError):
    """The run folder cannot be written: the disk is full, a quota is reached, or the folder has become read-only."""


@contextmanager
def translate_os_errors(path: Path) -> Iterator[None]:
    """Raise `OutputError` for an `OSError`: it adds the file, the last complete checkpoint and the next command."""
    try:
        yield
    except OSError as error:
        raise output_error(error, path) from error


def output_error(error: OSError, path: Path) -> OutputError:
    """Return the error for a file or folder that cannot be written."""
    folder = path if path.is_dir() else path.parent
    checkpoint = folder / "last.ckpt"
    state = f"{checkpoint} is complete." if checkpoint.exists() else "No checkpoint was saved yet."
    advice = f"Free disk space or allow writing, then resume with: {resume_command(folder)}"
    return OutputError(f"{path} cannot be written: {error.strerror or error}. {state} {advice}")


def resume_command(folder: Path) -> str:
    """Return the command that resumes a training run."""
    return f"retinanet train --resume -o {shlex.quote(str(folder))}"


def check_free_space(folder: Path, needed: int) -> None:
    """Raise `OutputError` if the disk of an existing folder has less free space than one checkpoint needs.

    Args:
        folder: run folder.
        needed: size of a checkpoint, bytes.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder}: a checkpoint needs {needed / 2**20:,.0f} MiB, found {free / 2**20:,.0f} MiB of free disk "
            "space. Free disk space, or choose an --output on another disk"
        )


def write_output(path: Path, content: bytes | str) -> None:
    """Write a file of the run folder. Raises `OutputError`; an existing file then keeps its content."""
    with translate_os_errors(path):
        write_atomically(path, content)


class CsvTable:
    """A CSV file that grows row by row during training. Checkpoints store its size, so that a resume can truncate it.

    Args:
        path: path of the file.
        columns: column names.
    """

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path = path
        self.columns = columns

    def write_header(self) -> None:
        """Write a file with the header only. An existing file is replaced."""
        write_output(self.path, ",".join(self.columns) + "\r\n")

    def append(self, row: dict[str, Any]) -> None:
        """Append a row."""
        with translate_os_errors(self.path), self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def size(self) -> int:
        """Return the size of the file, bytes, after a flush to the disk; 0 for a missing file."""
        if not self.path.exists():
            return 0
        with translate_os_errors(self.path), self.path.open("rb+") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def truncate(self, size: int, *, columns: tuple[str, ...] = ()) -> None:
        """Drop the rows after the first `size` bytes, which a resumed training run writes again.

        Of a file that another program has saved again (with other line ends, for example), the complete lines within
        `size` bytes stay. A file of an earlier version, which lacks some columns, gets empty cells in these columns. A
        file that is missing or has another header is replaced by a new file with the header only.

        Args:
            size: size of the file at the checkpoint, bytes.
            columns: columns of the file at the checkpoint; by default the columns of this table.
        """
        content = self.path.read_bytes() if self.path.exists() else b""
        header = tuple(content.split(b"\n")[0].rstrip(b"\r").decode(errors="replace").split(","))
        columns = columns or self.columns
        if header == columns == self.columns and b"\n" in content[:size]:
            with translate_os_errors(self.path):
                os.truncate(self.path, content.rindex(b"\n", 0, size) + 1)
        elif set(header) <= set(self.columns) and set(columns) <= set(self.columns):
            rows = list(csv.DictReader(io.StringIO(content.decode(errors="replace")), restval=""))
            # A run that was killed after its first resume has the new columns, but the size of the file before.
            ends = itertools.accumulate(map(len, _csv_lines(rows, columns)))
            complete = sum(1 for _ in itertools.takewhile(lambda end: end <= size, ends)) - 1  # without the header
            write_output(self.path, "".join(_csv_lines(rows[: max(0, complete)], self.columns)))
        else:
            self.write_header()


def _csv_lines(rows: Iterable[dict[str, str]], columns: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of a CSV file of numbers, the header first. A missing column gives empty cells."""
    yield ",".join(columns) + "\r\n"
    for row in rows:
        yield ",".join(row.get(name, "") for name in columns) + "\r\n"


def report_progress(line: str) -> None:
    """Log a line for the user, on rank 0 only."""
    if is_rank_zero():
        progress_log.info(line)


def is_rank_zero() -> bool:
    """Return whether this process has rank 0, the rank that writes the files of the run folder."""
    from lightning.pytorch.utilities import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0
