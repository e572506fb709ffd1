"""Worker processes: too little shared memory is refused before training, and dead or stuck workers end the run."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from retinanet.config import TrainConfig, resolve
from retinanet.data import load
from retinanet.train import loader_workers
from retinanet.train.detection_module import DetectionModule
from retinanet.train.loader_workers import WorkerError, batch_bytes, check_shared_memory, worker_failure
from tests.train.runs import Options, assert_same_run, run

MIB = 2**20


@pytest.fixture
def wide(squares: tuple[Path, Path]) -> tuple[TrainConfig, object]:
    """Return a config and data whose images of 96 x 64 pixels become 1200 x 800, padded to 1216 x 800."""
    paths = {"train": squares[0], "val": squares[1], "output": "o"}
    return resolve(TrainConfig, {**paths, "augment": False}), load(squares[0])


def set_shared_memory(monkeypatch: pytest.MonkeyPatch, size: int, free: int) -> None:
    def statvfs(_: Path) -> SimpleNamespace:
        return SimpleNamespace(f_blocks=size, f_bavail=free, f_frsize=1)

    monkeypatch.setattr(loader_workers.os, "statvfs", statvfs)


def test_the_size_of_a_batch(wide) -> None:
    config, data = wide
    sides = {(record.width, record.height) for record in data.records}
    assert sides == {(96, 64)}
    assert batch_bytes(config, data) == 8 * 3 * 800 * 1216


def test_too_little_shared_memory_is_refused_with_the_sizes_and_the_ways_out(wide, monkeypatch) -> None:
    """A batch has 8 x 3 x 1216 x 800 = 23.3 MB. 2 workers prepare 4 batches and training holds 2: 140.1 MB."""
    config, data = wide
    set_shared_memory(monkeypatch, 64 * MIB, 64 * MIB)
    with pytest.raises(WorkerError) as refused:
        check_shared_memory(config, data, data)
    assert str(refused.value) == (
        "too little free shared memory in /dev/shm: 67 MB of 67 MB, needed 140 MB. A batch of 8 images needs 23 MB, "
        "and "
        "2 workers prepare up to 6 batches. Use --workers 0, with which the main process loads the images; or lower "
        "--batch-size to 3; or enlarge the shared memory: docker run --shm-size=256m"
    )
    for changed in ({"workers": 0}, {"batch_size": 3}, {"workers": 1, "batch_size": 5}):
        check_shared_memory(resolve(TrainConfig, {**PATHS, "augment": False, **changed}), data, data)
    set_shared_memory(monkeypatch, 128 * MIB, 100_000_000)
    with pytest.raises(WorkerError, match=r"100 MB of 134 MB.* to 5, or use --workers 1; or enlarge"):
        check_shared_memory(config, data, data)
    check_shared_memory(resolve(TrainConfig, {**PATHS, "augment": False, "workers": 1}), data, data)
    set_shared_memory(monkeypatch, 256 * MIB, 256 * MIB)
    check_shared_memory(config, data, data)
    set_shared_memory(monkeypatch, 256 * MIB, 20 * MIB)
    with pytest.raises(WorkerError, match=r": 21 MB of 268 MB, needed 140 MB.*lower --batch-size to 1;"):
        check_shared_memory(config, data, data)
    monkeypatch.setattr(loader_workers, "SHARED_MEMORY", Path("/nowhere"))
    check_shared_memory(config, data, data)


PATHS = {"train": "t", "val": "v", "output": "o"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            "DataLoader worker (pid 42) is killed by signal: Killed. ",
            r"process 42, which loads images, was killed .* ran out of memory",
        ),
        ("DataLoader worker (pid 42) is killed by signal: Bus error. It is", r"'Bus error'. The shared memory"),
        (
            "DataLoader worker (pid(s) 4, 5) exited unexpectedly",
            "process 4, 5, which loads images, exited unexpectedly. The messages",
        ),
        ("DataLoader worker (pid 4) exited unexpectedly with exit code 1. Details", "with exit code 1"),
        (
            "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
            "RuntimeError: unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)\n",
            r"no shared memory .* \(unable to allocate shared memory.*No space left on device \(28\)\)",
        ),
    ],
)
def test_errors_of_the_loader_become_errors_for_the_user(error: str, expected: str) -> None:
    failure = worker_failure(RuntimeError(error))
    assert failure is not None
    with pytest.raises(WorkerError, match=expected):
        raise failure
    assert "--workers 0" in str(failure)


def test_other_errors_keep_their_type() -> None:
    assert worker_failure(RuntimeError("Caught RuntimeError in DataLoader worker process 0: a bug")) is None
    assert worker_failure(OSError(28, "No space left on device")) is None
    assert worker_failure(ValueError("DataLoader worker (pid 4) exited unexpectedly")) is None
    failure = worker_failure(BlockingIOError(11, "Resource temporarily unavailable"))
    assert "worker processes could not start: Resource temporarily unavailable" in str(failure)


class _Signal:
    """Send a signal to all workers at step 4, within the second epoch."""

    def __init__(self, signum: int) -> None:
        self.signum = signum

    def __call__(self) -> None:
        original = DetectionModule.training_step

        def step(module: DetectionModule, *args: object) -> object:
            if module.global_step == 4:
                for worker in multiprocessing.active_children():
                    os.kill(worker.pid, self.signum)
            return original(module, *args)

        DetectionModule.training_step = step  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "message"),
    [(signal.SIGKILL, "was killed by the signal 'Killed'"), (signal.SIGSTOP, "within 3 seconds (--worker-timeout)")],
)
def test_a_run_resumes_after_a_dead_or_stuck_worker(
    options: Options, uninterrupted: Callable[..., Path], tmp_path: Path, signum: int, message: str
) -> None:
    """The run ends within seconds, and the resumed run equals an uninterrupted run."""
    other = {**options, "workers": 2, "worker_timeout": 3, "output": tmp_path / "other"}
    start = time.monotonic()
    assert run(other, tmp_path / "log", _Signal(signum)) == 2, (tmp_path / "log").read_text()
    assert time.monotonic() - start < 60
    log = (tmp_path / "log").read_text()
    assert message in log
    assert "Then resume with: retinanet train --resume" in log
    assert "Traceback" not in log.rpartition("error: ")[2]
    assert torch.load(other["output"] / "last.ckpt", weights_only=True)["global_step"] >= 3
    assert run({**other, "resume": True}, tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert_same_run(uninterrupted(), other["output"])


class _SmallSharedMemory:
    """Give the process a /dev/shm of 64 KiB, which the check before training does not see."""

    def __call__(self) -> None:
        mounts = (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", "size=64k", "tmpfs", "/dev/shm"])  # noqa: S108
        is_private = ctypes.CDLL(None).unshare(0x00020000) == 0  # CLONE_NEWNS: mounts of this process alone
        if not is_private or any(subprocess.run(["mount", *mount], check=False).returncode for mount in mounts):
            os._exit(77)
        loader_workers.SHARED_MEMORY = Path("/nowhere")  # type: ignore[misc]


@pytest.mark.slow
def test_shared_memory_that_another_program_fills_ends_the_run(options: Options, tmp_path: Path) -> None:
    """The error of the worker reaches the training process at once, and not after --worker-timeout."""
    start = time.monotonic()
    status = run({**options, "workers": 1, "output": tmp_path / "other"}, tmp_path / "log", _SmallSharedMemory())
    if status == 77:
        pytest.skip("needs permission to mount a tmpfs")
    assert status == 2, (tmp_path / "log").read_text()
    assert time.monotonic() - start < 60
    assert "unable to allocate shared memory" in (tmp_path / "log").read_text().rpartition("error: ")[2]
