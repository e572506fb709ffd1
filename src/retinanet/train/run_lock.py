"""Lock of a run folder: one process writes into the folder at a time.

The lock is an advisory lock of the operating system (flock on Unix) on the file `run.lock`. The kernel releases it when
the process ends, also after SIGKILL, so a killed run never blocks its own resume. On NFS, Linux passes flock to the
server, so that the lock also holds between hosts. On a file system without flock, the existence of the file is the
lock, which a process of the same host takes over once the holder no longer exists.

This module imports neither torch nor Lightning, so that the command line refuses a folder in use at once.
"""

from __future__ import annotations

import errno
import os
import platform
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from retinanet.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_FILE: Final = "run.lock"
"""Name of the lock file. It holds the process id and the host of the process that writes into the folder."""
RESTART_WAIT: Final = 60.0
"""Longest wait for the lock after a restart by SLURM or torchrun, seconds: the earlier process may still be ending."""
RESTART_COUNTS: Final = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
"""Environment variables with the number of restarts, set by SLURM (requeue) and torchrun (`--max-restarts`)."""
RANKS: Final = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Environment variables with the rank of a process; Lightning reads the first that is set."""
_NO_FLOCK: Final = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL})
_held: dict[str, tuple[int, int]] = {}
"""Folders that this process has locked -> process id, which differs in a forked child, and thread."""


def is_restart() -> bool:
    """Return whether SLURM or torchrun has restarted this command. Training then resumes from its checkpoint."""
    return any(os.environ.get(name, "0") not in {"", "0"} for name in RESTART_COUNTS)


def check_output_path(folder: Path) -> None:
    """Raise `ConfigError` if a path cannot be a run folder: it is a file, is read-only, or is no valid path."""
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            folder.stat()
    except (OSError, ValueError) as error:  # a name that no file system accepts
        raise ConfigError(
            f"output must be a valid path, found {str(folder)[:100]!r} ({error}): choose another --output"
        ) from error
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if existing == folder and not folder.is_dir():
        raise ConfigError(f"output {folder} is a file, but must be a folder: choose another --output")
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(
            f"output {folder} cannot be written, because {existing} is read-only or not a folder: choose another "
            "--output"
        )


@contextmanager
def locked_run_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, on rank 0. The folder is created; if it is still empty on exit, it is removed.

    Within this context, the same thread may enter the context again.

    Raises:
        ConfigError: another process writes into the folder, or the folder cannot be written.
    """
    check_output_path(folder)
    key, holder = os.path.realpath(folder), (os.getpid(), threading.get_ident())
    rank = next((os.environ[name] for name in RANKS if name in os.environ), "0")
    if rank != "0" or _held.get(key) == holder:
        yield
        return
    created = [place for place in (folder, *folder.parents) if not place.exists()]
    lock = None
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = _acquire(folder)
        except OSError as error:
            raise ConfigError(
                f"output {folder} cannot be written: {error.strerror or error}: choose another --output"
            ) from error
        _held[key] = holder
        yield
    finally:
        if lock is not None:
            _held.pop(key, None)
            with suppress(OSError):
                # A process that waits for the removed file notices that the file has no name, and tries again.
                (folder / LOCK_FILE).unlink(missing_ok=True)
            lock.release()
        for place in created:
            with suppress(OSError):
                place.rmdir()


def _acquire(folder: Path) -> BaseFileLock:
    """Return the acquired lock of a folder. Raises `OSError`, or `ConfigError` if another process holds the lock."""
    path, timeout = folder / LOCK_FILE, RESTART_WAIT if is_restart() else 0.0
    lock: BaseFileLock = FileLock(path, timeout=timeout, fallback_to_soft=False)
    try:
        try:
            lock.acquire()
        except OSError as error:
            if isinstance(error, Timeout) or error.errno not in _NO_FLOCK:
                raise
            lock = SoftFileLock(path, timeout=timeout)
            lock.acquire()
    except Timeout as error:
        raise ConfigError(
            f"{folder} is in use: another process trains in this folder ({_holder(path)}). Wait until it ends, or "
            "choose another --output"
        ) from error
    if not isinstance(lock, SoftFileLock):  # a SoftFileLock writes the same lines
        with suppress(OSError):  # a full disk
            path.write_text(f"{os.getpid()}\n{platform.node()}\n")
    return lock


def _holder(path: Path) -> str:
    """Return the process and the host that a lock file names."""
    with suppress(OSError, ValueError):
        process, host, *_ = path.read_text().splitlines()
        return f"process {int(process)} on {host}"
    return "another process"
