"""Files that are either whole or not there, and paths that are checked before use."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from retinanet.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def existing_path(path: Path) -> Path:
    """Return the path. Raises `UserError`, with the nearest name in its folder, if nothing exists there."""
    if path.exists():
        return path
    parent = path.parent
    if not parent.is_dir():
        raise UserError(f"{path}: there is no folder {parent}")
    near = did_you_mean(path.name, [entry.name for entry in parent.iterdir()])
    raise UserError(f"{path}: no such file or folder{near}")


def partial_path(path: Path) -> Path:
    """Return where a file is written before it takes its name: NAME.partial, in the same folder."""
    return path.with_name(path.name + ".partial")


def replace_file(partial: Path, path: Path) -> None:
    """Rename a finished file to its final name, after its content is on the disk.

    Both the file and its folder are flushed, so that the file is whole even after a power failure.
    """
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it becomes `path` on success and is removed on any error.

    The folder is made if it does not exist. An existing file keeps its content until the new one is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        yield partial
        replace_file(partial, path)
    except BaseException:
        with suppress(OSError):  # the folder may have become read-only
            partial.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a whole file, text as UTF-8. Its folder is made if it does not exist. Raises `OSError`."""
    with atomic_path(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
