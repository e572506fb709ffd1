"""Signals that stop a run: it is saved and can be resumed."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.train.made_faults import SignalAt
from tests.train.runs import Options, assert_same_run, run, table, wait_for


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
        (signal.SIGTERM, "training_step", 2, {"max_steps": 4}),
    ],
    ids=lambda value: str(value),
)
def test_told_to_stop(
    options: Options,
    undisturbed: Callable[..., Path],
    tmp_path: Path,
    signum: int,
    method: str,
    count: int,
    extra: Options,
):
    """Workers change no result, so the undisturbed run has none."""
    other = {**options, **extra, "output": tmp_path / "other"}
    log = tmp_path / "log"
    assert run(other, log, SignalAt(signum, method, count)) == 128 + signum, log.read_text()
    assert f"retinanet train --resume -o {other['output']}" in log.read_text()
    assert run({**other, "resume": True}, log) == 0, log.read_text()
    assert_same_run(undisturbed(**{k: v for k, v in extra.items() if k != "workers"}), other["output"])


@pytest.mark.slow
def test_sigterm_to_the_command(options: Options, tmp_path: Path):
    """The real command, told from outside; then the command that it names."""
    flags = [
        f"--{k.replace('_', '-')}={v}"
        for k, v in options.items()
        if isinstance(v, (int, str, Path)) and v is not False and k != "epochs"
    ]
    command = [sys.executable, "-m", "retinanet", "train", *flags, "--no-pretrained", "--epochs", "200"]
    command += ["--anchor-sizes", "16", "32", "64", "128", "256"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            wait_for(options["output"] / "metrics.csv", 2, _Alive(process))
        except AssertionError as error:
            process.kill()
            raise AssertionError(process.communicate()[0]) from error
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=240)
    assert process.returncode == 143, said
    done = len([row for row in table(options["output"] / "metrics.csv") if row["loss"]])
    resume = [sys.executable, "-m", "retinanet", "train", "--resume", "-o", str(options["output"]), "--epochs", "2"]
    assert " ".join(resume[3:-2]) in said
    again = subprocess.run([*resume[:-1], str(done // 3 + 2)], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert len([row for row in table(options["output"] / "metrics.csv") if row["loss"]]) == 3 * (done // 3 + 2)


class _Alive:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def is_alive(self) -> bool:
        return self.process.poll() is None


@pytest.mark.slow
def test_slurm_requeues_and_the_same_command_goes_on(
    options: Options, undisturbed: Callable[..., Path], tmp_path: Path, monkeypatch
):
    """Lightning calls `scontrol requeue`, here a stand-in that notes its arguments and ends the job as SLURM would."""
    calls = tmp_path / "calls"
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nkill -TERM $PPID\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
    whole = undisturbed()
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    slurm = {"JOB_ID": "17", "NTASKS": "1", "JOB_NAME": "train", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in {**slurm, "NODELIST": "localhost", "NTASKS_PER_NODE": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    other = {**options, "output": tmp_path / "other"}
    plant = _WithEnvironment(SignalAt(signal.SIGUSR1, "training_step", 4))
    assert run(other, tmp_path / "log", plant) == 143, (tmp_path / "log").read_text()
    assert calls.read_text() == "requeue 17\n"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert run(other, tmp_path / "log", _WithEnvironment(None)) == 0, (tmp_path / "log").read_text()
    assert "run again by SLURM or torchrun: going on" in (tmp_path / "log").read_text()
    assert_same_run(whole, other["output"])


class _WithEnvironment:
    """Give a process of the fork server the environment of this one."""

    def __init__(self, then: Callable[[], None] | None) -> None:
        self.environment = dict(os.environ)
        self.then = then

    def __call__(self) -> None:
        os.environ.update(self.environment)
        if self.then is not None:
            self.then()
