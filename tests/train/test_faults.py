"""Faults from outside: signals, a full disk, a folder made read-only, a picture that goes, a run that overwrites."""

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retinanet.data import DataError
from retinanet.errors import ConfigError
from retinanet.train import OutputError, fit
from retinanet.train.module import DetectionModule
from retinanet.train.run_folder import ASIDE
from tests.shared import MadeOnce
from tests.train.runs import Options, assert_same_run, run, start, table, wait_for


@pytest.fixture
def options(tiny: Options) -> Options:
    return {**tiny, "epochs": 3, "color_jitter": 0.3, "scale_jitter": (0.8, 1.2), "score_threshold": 0.001}


@pytest.fixture
def undisturbed(squares: tuple[Path, Path], options: Options, made_once: MadeOnce) -> Callable[..., Path]:
    """Train with `options`, changed as given, and return the run's folder; runs with the same changes are one."""

    def undisturbed(**changes: object) -> Path:
        def make(folder: Path) -> None:
            whole = {**options, **changes, "train": squares[0], "val": squares[1], "output": folder / "run"}
            assert run(whole, folder / "log") == 0, (folder / "log").read_text()

        name = "-".join(["undisturbed", *(f"{name}={value}" for name, value in sorted(changes.items()))])
        return made_once(name, make) / "run"

    return undisturbed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(folder)], check=False)
    if made.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


class SignalAt:
    """Send this process a signal within a training step or an evaluation step."""

    def __init__(self, signum: int, method: str, count: int) -> None:
        self.signum = signum
        self.method = method
        self.count = count

    def __call__(self) -> None:
        original = getattr(DetectionModule, self.method)

        def step(module: DetectionModule, *args: object) -> object:
            self.count -= 1
            if self.count == 0:
                os.kill(os.getpid(), self.signum)
            return original(module, *args)

        setattr(DetectionModule, self.method, step)


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


@pytest.mark.slow
def test_a_full_disk(options: Options, undisturbed: Callable[..., Path], small_disk: Path, tmp_path: Path):
    """The disk fills within the writing of the second checkpoint: the first is whole, and the run goes on from it."""
    size = (undisturbed() / "last.ckpt").stat().st_size
    full = {**options, "output": small_disk / "run"}
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler = small_disk / "filler"
    filler.write_bytes(bytes(max(0, free - int(1.5 * size))))
    assert run(full, tmp_path / "full.log") == 2
    said = (tmp_path / "full.log").read_text()
    assert "last.ckpt cannot be written: No space left on device" in said
    assert "last.ckpt is whole; when it can be written again, `retinanet train --resume" in said
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=600m", str(small_disk)], check=True)
    assert run({**full, "resume": True}, tmp_path / "full.log") == 0, (tmp_path / "full.log").read_text()
    assert_same_run(undisturbed(), full["output"])


class _FileLimit:
    """No file may grow past a size: what a quota does, without the right to mount."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))


@pytest.mark.slow
def test_a_file_limit(options: Options, undisturbed: Callable[..., Path], tmp_path: Path):
    """From the second epoch on no checkpoint can be written."""
    size = (undisturbed() / "last.ckpt").stat().st_size
    other = {**options, "output": tmp_path / "other"}
    assert run({**other, "epochs": 3, "max_steps": 3}, tmp_path / "log") == 0
    shutil.rmtree(other["output"])
    assert run(other, tmp_path / "limit.log", _FileLimit(size // 2)) == 2
    said = (tmp_path / "limit.log").read_text()
    assert "last.ckpt cannot be written: File too large" in said
    assert not list(other["output"].glob("*.partial"))
    assert run({**other, "resume": True}, tmp_path / "limit.log") == 0
    assert_same_run(undisturbed(), other["output"])


def test_a_folder_that_cannot_be_written_is_refused_first(options: Options, tmp_path: Path):
    """Before any data is read: the data does not exist."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    missing = {**options, "train": tmp_path / "no.json"}
    with pytest.raises(ConfigError, match="is read-only or not a folder"):
        fit(**{**missing, "output": blocked / "run"})
    locked = tmp_path / "locked"
    locked.mkdir()
    if subprocess.run(["chattr", "+i", str(locked)], check=False, capture_output=True).returncode:
        locked.chmod(0o555)
        if os.access(locked, os.W_OK):
            pytest.skip("needs chattr, or not to be root")
    try:
        with pytest.raises(ConfigError, match=f"{locked} is read-only"):
            fit(**{**missing, "output": locked / "run"})
    finally:
        subprocess.run(["chattr", "-i", str(locked)], check=False, capture_output=True)
        locked.chmod(0o755)


@pytest.mark.slow
def test_a_folder_made_read_only_under_way(
    options: Options, undisturbed: Callable[..., Path], small_disk: Path, tmp_path: Path
):
    subprocess.run(["mount", "-o", "remount,size=600m", str(small_disk)], check=True)
    other = {**options, "output": small_disk / "run"}
    process = start({**other}, tmp_path / "other.log", _Remount(small_disk))
    process.join(300)
    said = (tmp_path / "other.log").read_text()
    assert process.exitcode == 2, said
    assert "cannot be written: Read-only file system" in said
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert run({**other, "resume": True}, tmp_path / "other.log") == 0, (tmp_path / "other.log").read_text()
    assert_same_run(undisturbed(), other["output"])


class _Remount:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> None:
        from retinanet.train.output_files import Table

        original = Table.add
        seen = []

        def add(table: Table, row: dict[str, object]) -> None:
            seen.append(row)
            if len(seen) == 8:  # within the second epoch
                subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)
            original(table, row)

        Table.add = add  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("which", ["train", "val"])
def test_a_picture_that_goes(
    options: Options, undisturbed: Callable[..., Path], tmp_path: Path, workers: int, which: str
):
    """It is named, what was done is saved, and with the picture back the run ends as if nothing had been."""
    for name in ("train", "val"):
        shutil.copytree(options[name].parent, tmp_path / "data" / name)
        options[name] = tmp_path / "data" / name / "annotations.json"
    other = {**options, "workers": workers, "output": tmp_path / "other"}
    picture = options[which].parent / "images" / "5.png"
    process = start({**other, "epochs": 3}, tmp_path / "other.log", _Vanish(picture))
    process.join(300)
    said = (tmp_path / "other.log").read_text()
    assert process.exitcode == 2, said
    assert str(picture) in said
    assert "Traceback" not in said.rpartition("error: ")[2]
    assert "--resume" in said
    shutil.copy(picture.with_suffix(".kept"), picture)
    assert run({**other, "resume": True}, tmp_path / "other.log") == 0, (tmp_path / "other.log").read_text()
    assert_same_run(undisturbed(), other["output"])


class _Vanish:
    """Remove a picture when the first step is done."""

    def __init__(self, picture: Path) -> None:
        self.picture = picture

    def __call__(self) -> None:
        original = DetectionModule.training_step

        def step(module: DetectionModule, *args: object) -> object:
            if module.global_step == 4 and self.picture.exists():
                self.picture.rename(self.picture.with_suffix(".kept"))
            return original(module, *args)

        DetectionModule.training_step = step  # type: ignore[method-assign]


def test_overwrite_keeps_the_old_run_until_the_new_one_has_begun(options: Options, run_folder: Path, monkeypatch):
    old = run_folder
    before = {path.name: path.read_bytes() for path in old.iterdir() if path.is_file()}
    with pytest.raises(DataError):
        fit(**{**options, "val": old / "config.yaml", "overwrite": True, "format": "coco"})
    assert {path.name: path.read_bytes() for path in old.iterdir() if path.is_file()} == before

    def fail(*_: object) -> None:
        raise OutputError("no")

    with monkeypatch.context() as patch:
        patch.setattr(DetectionModule, "training_step", fail)
        with pytest.raises(OutputError):
            fit(**{**options, "epochs": 1, "overwrite": True})
    assert {path.name: path.read_bytes() for path in old.iterdir() if path.is_file()} == before
    assert not (old / ASIDE).exists()
    fit(**{**options, "epochs": 1, "max_steps": 2, "overwrite": True})
    assert not (old / ASIDE).exists()
    assert [row["step"] for row in table(old / "metrics.csv") if row["loss"]] == ["1", "2"]


@pytest.mark.slow
def test_an_overwriting_run_that_was_killed_gives_the_old_one_back(options: Options, run_folder: Path, tmp_path: Path):
    """Killed in its first step: the next command finds the old run."""
    old = run_folder
    before = {path.name: path.read_bytes() for path in old.iterdir() if path.is_file()}
    log = tmp_path / "log"
    killed = run({**options, "epochs": 2, "overwrite": True}, log, SignalAt(signal.SIGKILL, "training_step", 1))
    assert killed == -9
    assert (old / ASIDE / "last.ckpt").exists()
    with pytest.raises(ConfigError, match="already holds a run"):
        fit(**options)
    assert {path.name: path.read_bytes() for path in old.iterdir() if path.is_file()} == before
