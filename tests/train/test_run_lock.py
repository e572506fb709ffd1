"""The lock of a run folder."""

import multiprocessing
import os
import platform
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from filelock import SoftFileLock, UnixFileLock

from retinanet.errors import ConfigError
from retinanet.train.run_lock import LOCK_FILE, check_output_path, locked_run_folder
from tests.train.runs import Options, fork_server, start, wait_for_rows


def hold(folder: Path, held: Any, fork: bool) -> None:
    """Hold the lock until the process is killed; with `fork`, a child process outlives its parent."""
    with locked_run_folder(folder):
        if fork:
            multiprocessing.get_context("fork").Process(target=threading.Event().wait, args=(20,), daemon=True).start()
        held.set()
        threading.Event().wait(60)


@pytest.mark.slow
@pytest.mark.parametrize("fork", [False, True])
def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path, fork: bool):
    """A forked loader worker inherits the file of the lock, but not the lock."""
    folder, context = tmp_path / "run", fork_server()
    held = context.Event()
    process = context.Process(target=hold, args=(folder, held, fork))
    process.start()
    assert held.wait(60)
    message = rf"is in use: .*process {process.pid} on {platform.node()}"
    with pytest.raises(ConfigError, match=message), locked_run_folder(folder):
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with locked_run_folder(folder):
        assert (folder / LOCK_FILE).read_text().split() == [str(os.getpid()), platform.node()]
    assert not (folder / LOCK_FILE).exists()


def test_the_same_thread_may_enter_again_but_another_thread_may_not(tmp_path: Path):
    folder, errors = tmp_path / "a" / "run", []

    def enter() -> None:
        try:
            with locked_run_folder(folder):
                pass
        except ConfigError as error:
            errors.append(str(error))

    with locked_run_folder(folder), locked_run_folder(folder):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert len(errors) == 1
    assert "is in use" in errors[0]
    assert not (tmp_path / "a").exists(), "folders that are still empty are removed"


def test_a_file_system_without_flock_uses_the_existence_of_the_file(tmp_path: Path, monkeypatch):
    def fail(lock: UnixFileLock) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(UnixFileLock, "_acquire", fail)
    own = rf"process {os.getpid()} on"
    with locked_run_folder(tmp_path), pytest.raises(ConfigError, match=own), locked_run_folder_of_another(tmp_path):
        pass
    (tmp_path / LOCK_FILE).write_text(f"{2**22 - 1}\n{platform.node()}\n")  # a process that no longer exists
    with locked_run_folder(tmp_path):
        assert SoftFileLock(tmp_path / LOCK_FILE).pid == os.getpid()


def locked_run_folder_of_another(folder: Path) -> Any:
    """Return the context as another thread would enter it."""
    from retinanet.train import run_lock

    run_lock._held.clear()
    return locked_run_folder(folder)


def test_other_ranks_do_not_lock(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with locked_run_folder(tmp_path / "run"):
        assert not (tmp_path / "run").exists()


def test_a_path_with_a_null_byte_is_refused():
    with pytest.raises(ConfigError, match="must be a valid path"):
        check_output_path(Path("a\0b"))


@pytest.mark.slow
def test_a_running_training_is_neither_resumed_nor_overwritten(tiny: Options, tmp_path: Path):
    from retinanet.train import fit

    process = start({**tiny, "epochs": 200}, tmp_path / "log")
    try:
        wait_for_rows(tiny["output"] / "metrics.csv", 5, process)
        for more in ({"resume": True}, {"overwrite": True}, {}):
            with pytest.raises(ConfigError, match=f"is in use: .*process {process.pid}"):
                fit(**tiny, **more)
        assert process.is_alive()
    finally:
        process.kill()
        process.join()
    rows = (tiny["output"] / "metrics.csv").read_text().splitlines()
    steps = [int(row.split(",")[1]) for row in rows[1:]]
    assert steps == sorted(steps)
