"""Signals that stop training: a checkpoint is saved, and training can be resumed."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from retinanet.train.checkpointing import Checkpoints
from retinanet.train.graceful_stop import GracefulStop
from tests.train.runs import Options, assert_same_run, read_rows, run, wait_for_rows
from tests.train.signals import SignalAt


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "method", "count", "extra"),
    [
        (signal.SIGTERM, "training_step", 5, {}),
        (signal.SIGTERM, "training_step", 4, {"workers": 2, "patience": 2}),
        (signal.SIGTERM, "training_step", 3, {"accumulate": 2, "batch_size": 2}),
        (signal.SIGTERM, "training_step", 6, {}),
        (signal.SIGTERM, "validation_step", 1, {}),
        (signal.SIGTERM, "validation_step", 4, {"workers": 2}),
        (signal.SIGINT, "training_step", 1, {}),
        (signal.SIGHUP, "training_step", 2, {}),
        (signal.SIGTERM, "training_step", 2, {"max_steps": 4}),
        (signal.SIGTERM, "training_step", 6, {"sampler": "repeat_factor", "repeat_threshold": 1.0}),
    ],
    ids=lambda value: str(value),
)
def test_a_run_told_to_stop_by_a_signal_can_be_resumed(
    options: Options,
    uninterrupted: Callable[..., Path],
    tmp_path: Path,
    signum: int,
    method: str,
    count: int,
    extra: Options,
):
    """The uninterrupted run has no workers, because workers do not change the result."""
    other = {**options, **extra, "output": tmp_path / "other"}
    log = tmp_path / "log"
    assert run(other, log, SignalAt(signum, method, count)) == 128 + signum, log.read_text()
    assert f"retinanet train --resume -o {other['output']}" in log.read_text()
    assert run({**other, "resume": True}, log) == 0, log.read_text()
    assert_same_run(uninterrupted(**{k: v for k, v in extra.items() if k != "workers"}), other["output"])


@pytest.mark.slow
def test_the_command_saves_at_sigterm_and_prints_the_command_that_resumes(options: Options, tmp_path: Path):
    flags = [
        f"--{k.replace('_', '-')}={v}"
        for k, v in options.items()
        if isinstance(v, (int, str, Path)) and v is not False and k != "epochs"
    ]
    command = [sys.executable, "-m", "retinanet", "train", *flags, "--no-pretrained", "--epochs", "200"]
    command += ["--anchor-sizes", "16", "32", "64", "128", "256"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            wait_for_rows(options["output"] / "metrics.csv", 2, _Process(process))
        except AssertionError as error:
            process.kill()
            raise AssertionError(process.communicate()[0]) from error
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 143, output
    steps = len([row for row in read_rows(options["output"] / "metrics.csv") if row["loss"]])
    resume = [sys.executable, "-m", "retinanet", "train", "--resume", "-o", str(options["output"]), "--epochs", "2"]
    assert " ".join(resume[3:-2]) in output
    resumed = subprocess.run([*resume[:-1], str(steps // 3 + 2)], capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert len([row for row in read_rows(options["output"] / "metrics.csv") if row["loss"]]) == 3 * (steps // 3 + 2)


class _Process:
    """A `Popen` with the method `is_alive` of multiprocessing's processes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def is_alive(self) -> bool:
        return self.process.poll() is None


@pytest.mark.slow
def test_slurm_requeues_and_the_restarted_command_resumes(
    options: Options, uninterrupted: Callable[..., Path], tmp_path: Path, monkeypatch
):
    """Lightning calls `scontrol requeue`. Here, a script stores the arguments and ends the job as SLURM would."""
    calls = tmp_path / "calls"
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nkill -TERM $PPID\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
    expected = uninterrupted()
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    slurm = {"JOB_ID": "17", "NTASKS": "1", "JOB_NAME": "train", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in {**slurm, "NODELIST": "localhost", "NTASKS_PER_NODE": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    other = {**options, "output": tmp_path / "other"}
    prepare = _WithEnvironment(SignalAt(signal.SIGUSR1, "training_step", 4))
    assert run(other, tmp_path / "log", prepare) == 143, (tmp_path / "log").read_text()
    assert calls.read_text() == "requeue 17\n"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert run(other, tmp_path / "log", _WithEnvironment(None)) == 0, (tmp_path / "log").read_text()
    assert "restarted by SLURM or torchrun: resuming" in (tmp_path / "log").read_text()
    assert_same_run(expected, other["output"])


class _WithEnvironment:
    """Copy the environment of this process into a process of the fork server."""

    def __init__(self, then: Callable[[], None] | None) -> None:
        self.environment = dict(os.environ)
        self.then = then

    def __call__(self) -> None:
        os.environ.update(self.environment)
        if self.then is not None:
            self.then()


def test_an_ignored_hangup_stays_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nohup` starts a program with SIGHUP ignored. The other signals stop training."""
    stop = GracefulStop(checkpoints=Checkpoints(folder=tmp_path), folder=tmp_path)
    handlers: dict[int, object] = {signal.SIGHUP: signal.SIG_IGN}
    monkeypatch.setattr(signal, "getsignal", lambda signum: handlers.get(signum, signal.SIG_DFL))
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    stop.on_train_start(None, None)  # type: ignore[arg-type]
    assert handlers.pop(signal.SIGHUP) == signal.SIG_IGN
    assert set(handlers) == {signal.SIGTERM, signal.SIGINT, signal.SIGXCPU}
