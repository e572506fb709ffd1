"""Worker processes of the data loader: the shared memory that they need, their end, and the errors they cause."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from retinanet.config import with_options
from retinanet.errors import UserError
from retinanet.train.devices import device_counts
from retinanet.train.memory import largest_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.process import BaseProcess

    from retinanet.config import TrainConfig
    from retinanet.data import DetectionData

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - where Linux keeps shared memory, not a temporary file of ours
BATCHES_PER_WORKER: Final = 2
"""Number of batches that each worker prepares in advance."""
BATCHES_IN_USE: Final = 2
"""Number of batches that the training process holds: the current one, and the one that it copies to the device."""
_MB: Final = 1_000_000
_MIB: Final = 2**20

_ENDED: Final = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? (?P<pid>[\d, ]+)\) "
    r"(?:is killed by signal: (?P<signal>[^.]+)|exited unexpectedly(?: with exit code (?P<code>\d+))?)"
)
_NO_SHARED_MEMORY: Final = re.compile(r"unable to (?:allocate shared memory|write to file|mmap|resize file)[^\n]*")
_PARTS: Final = 20
"""Number of parts in which the watchdog waits."""
_LIMITS: Final = frozenset((errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE))
"""Errors of a system that cannot start another process."""
_CAUSES: Final = {
    "Killed": "The system probably ran out of memory and killed the process",
    "Bus error": "The shared memory (/dev/shm) is probably full",
}
_WAYS_OUT: Final = "use fewer workers, or --workers 0, with which the main process loads the images"


class WorkerError(UserError):
    """A worker process of the data loader died, is stuck, or has too little shared memory."""


def check_shared_memory(config: TrainConfig, train_data: DetectionData, val_data: DetectionData) -> None:
    """Raise `WorkerError` if the batches that the workers prepare do not fit into the shared memory of the system.

    With too little shared memory, which Docker limits to 64 MB by default, a worker loses its batch, and training would
    wait for this batch. Systems without /dev/shm are not checked.
    """
    workers = config.loading.workers
    if not workers or not SHARED_MEMORY.is_dir():
        return
    system = os.statvfs(SHARED_MEMORY)
    size, free = system.f_blocks * system.f_frsize, system.f_bavail * system.f_frsize
    processes, _ = device_counts(config)
    batch = max(
        batch_bytes(config, train_data),
        batch_bytes(with_options(config, augment=False), val_data),
    )
    count = processes * (workers * BATCHES_PER_WORKER + BATCHES_IN_USE)
    if count * batch <= free:
        return
    images = config.batch.batch_size
    smaller = images * free // (count * batch)
    advice = [f"lower --batch-size to {smaller}"] if smaller else ["lower --batch-size, --image-size or --max-size"]
    fewer = (free // (processes * batch) - BATCHES_IN_USE) // BATCHES_PER_WORKER
    advice += [f"use --workers {fewer}"] if fewer > 0 else []
    shm_size = 2 ** (count * batch // _MIB).bit_length()
    of = f" for each of {processes} processes" if processes > 1 else ""
    raise WorkerError(
        f"too little free shared memory in {SHARED_MEMORY}: {_mb(free)} of {_mb(size)}, needed {_mb(count * batch)}. "
        f"A batch of {images} images needs {_mb(batch)}, and {workers} workers{of} prepare up to "
        f"{count // processes} batches. Use --workers 0, with which the main process loads the images; or "
        f"{', or '.join(advice)}; or enlarge the shared memory: docker run --shm-size={shm_size}m"
    )


def batch_bytes(config: TrainConfig, data: DetectionData) -> int:
    """Return the size of the largest usual batch, bytes: uint8 images that are all landscape, or all portrait."""
    largest = 0
    for landscape in (True, False):
        records = tuple(record for record in data.records if (record.width >= record.height) == landscape)
        if records:
            H, W = largest_shape(config, dataclasses.replace(data, records=records))
            largest = max(largest, min(config.batch.batch_size, len(data.records)) * 3 * H * W)
    return largest


def worker_failure(error: BaseException) -> WorkerError | None:
    """Return the error for the user if PyTorch reports a dead worker or full shared memory, otherwise None."""
    text = str(error)
    if isinstance(error, UserError) or not isinstance(error, (RuntimeError, OSError)):
        return None
    if ended := _ENDED.search(text):
        how = f"was killed by the signal {ended['signal']!r}" if ended["signal"] else "exited unexpectedly"
        how += f" with exit code {ended['code']}" if ended["code"] else ""
        cause = _CAUSES.get(ended["signal"] or "", "The messages above may show the cause")
        return WorkerError(f"worker process {ended['pid']}, which loads images, {how}. {cause}: {_WAYS_OUT}")
    if full := _NO_SHARED_MEMORY.search(text):
        return WorkerError(
            f"no shared memory for a batch is left in {SHARED_MEMORY} ({full[0].strip()}). Lower "
            f"--batch-size, {_WAYS_OUT}, or enlarge the shared memory: docker run --shm-size"
        )
    if isinstance(error, OSError) and error.errno in _LIMITS and not text.startswith("Caught "):
        return WorkerError(f"the worker processes could not start: {error.strerror}. {_WAYS_OUT.capitalize()}")
    return None


class Watchdog:
    """Context that kills the workers if its code takes too long. The code then fails because its workers are dead.

    Args:
        workers: function that returns the worker processes.
        seconds: longest time, seconds; 0: no limit.
    """

    def __init__(self, workers: Callable[[], Iterable[BaseProcess]], seconds: float) -> None:
        self.workers = workers
        self.seconds = seconds
        self.has_fired = False
        self._done = threading.Event()

    def __enter__(self) -> None:
        self._done = threading.Event()
        if self.seconds:
            threading.Thread(target=self._watch, args=(self._done,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _watch(self, done: threading.Event) -> None:
        # The time in which the whole program is suspended (Ctrl-Z) counts as one part of many.
        for _ in range(_PARTS):
            if done.wait(self.seconds / _PARTS):
                return
        self.has_fired = True
        for worker in self.workers():
            worker.kill()

    def failure(self) -> WorkerError | None:
        """Return the error for the user if the workers were killed, otherwise None."""
        if not self.has_fired:
            return None
        return WorkerError(
            f"no batch came from the workers within {self.seconds:g} seconds (--worker-timeout): a worker is stuck, "
            "for example in a file system that does not respond or in a transform. Check the storage, "
            "raise --worker-timeout if loading is that slow, or use --workers 0, with which the main process loads the "
            "images"
        )


def exit_with_trainer(trainer_pid: int, _worker_id: int) -> None:
    """Start a thread in a loader worker that ends the worker when the training process no longer exists.

    PyTorch's workers only watch their parent process. With a fork server, the default of Python 3.14, the parent is
    the fork server and not the training process.
    """

    def watch() -> None:
        while True:
            time.sleep(5)
            try:
                os.kill(trainer_pid, 0)
            except OSError:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def kill_workers(workers: Iterable[BaseProcess]) -> None:
    """Kill worker processes, also stopped ones, so that the program can exit without waiting for these workers."""
    for worker in workers:
        try:
            worker.kill()
            worker.join(5)
        except RuntimeError:  # PyTorch's handler of SIGCHLD reports the worker that was just killed
            continue


def _mb(size: int) -> str:
    return f"{size / _MB:,.0f} MB"
