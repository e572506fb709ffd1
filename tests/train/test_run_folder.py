"""Run folder: checks before training, and the replacement of an older run."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from retinanet.commands.terminal import show_progress
from retinanet.data import DataError
from retinanet.errors import ConfigError
from retinanet.train import CheckpointError, OutputError, fit
from retinanet.train.detection_module import DetectionModule
from retinanet.train.run_folder import BACKUP_FOLDER, FLIGHT_RECORD_FILE
from tests.train.run_files import metrics_rows
from tests.train.runs import Options, read_rows, run
from tests.train.signals import SignalAt


@pytest.mark.slow
def test_an_existing_run_is_not_overwritten(tiny, run_folder):
    before = (tiny["output"] / "last.ckpt").read_bytes()
    with pytest.raises(ConfigError, match=r"already holds a training run: .*--resume.*--overwrite"):
        fit(**tiny, max_steps=1)
    assert (tiny["output"] / "last.ckpt").read_bytes() == before
    fit(**tiny, max_steps=2, overwrite=True)
    assert metrics_rows(tiny["output"])[-1]["step"] == "2"


def test_a_folder_that_cannot_be_written_is_refused_before_the_data_is_read(options: Options, tmp_path: Path):
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
            pytest.skip("needs chattr, or a user other than root")
    try:
        with pytest.raises(ConfigError, match=f"{locked} is read-only"):
            fit(**{**missing, "output": locked / "run"})
    finally:
        subprocess.run(["chattr", "-i", str(locked)], check=False, capture_output=True)
        locked.chmod(0o755)


def test_a_restart_with_only_a_flight_record_starts_from_the_beginning(options: Options, monkeypatch, tmp_path: Path):
    """A run that failed at its first step leaves only the flight record, which cannot be resumed."""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    folder = tmp_path / "failed"
    folder.mkdir()
    (folder / FLIGHT_RECORD_FILE).write_bytes(b"record")
    with pytest.raises(DataError, match=r"no\.json"):
        fit(**{**options, "train": tmp_path / "no.json", "output": folder})
    assert [path.name for path in folder.iterdir()] == [FLIGHT_RECORD_FILE]


@pytest.mark.slow
def test_overwrite_keeps_the_old_run_until_the_first_step_of_the_new_run(
    options: Options, run_folder: Path, monkeypatch
):
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
    assert not (old / BACKUP_FOLDER).exists()
    fit(**{**options, "epochs": 1, "max_steps": 2, "overwrite": True})
    assert not (old / BACKUP_FOLDER).exists()
    assert [row["step"] for row in read_rows(old / "metrics.csv") if row["loss"]] == ["1", "2"]


@pytest.mark.slow
def test_the_old_run_is_restored_if_an_overwriting_run_is_killed_in_its_first_step(
    options: Options, run_folder: Path, tmp_path: Path
):
    old = run_folder
    before = {path.name: path.read_bytes() for path in old.iterdir() if path.is_file()}
    log = tmp_path / "log"
    killed = run({**options, "epochs": 2, "overwrite": True}, log, SignalAt(signal.SIGKILL, "training_step", 1))
    assert killed == -9
    assert (old / BACKUP_FOLDER / "last.ckpt").exists()
    with pytest.raises(ConfigError, match="already holds a training run"):
        fit(**options)
    assert {path.name: path.read_bytes() for path in old.iterdir() if path.is_file()} == before


@pytest.mark.slow
def test_a_lost_last_checkpoint_is_replaced_by_the_best(run_folder: Path, capsys: pytest.CaptureFixture[str]):
    """`run_folder` holds 2 epochs without any detection: the first is the best."""
    show_progress()
    (run_folder / "last.ckpt").unlink()
    fit(output=run_folder, resume=True)
    assert f"last.ckpt does not exist: training continues from {run_folder / 'best.ckpt'}" in capsys.readouterr().out
    rows = [row["epoch"] for row in metrics_rows(run_folder) if row["AP"]]
    assert rows == ["0", "1"]


def test_a_damaged_last_checkpoint_names_the_best(run_folder: Path):
    (run_folder / "last.ckpt").unlink()  # it may be a link to best.ckpt
    (run_folder / "last.ckpt").write_bytes(b"")
    copy = re.escape(f"cp {run_folder / 'best.ckpt'} {run_folder / 'last.ckpt'}")
    with pytest.raises(CheckpointError, match=rf"found an empty file\..* up to its best epoch\..* first: {copy}"):
        fit(output=run_folder, resume=True)
    (run_folder / "best.ckpt").unlink()
    with pytest.raises(CheckpointError, match="Start the training run again: --overwrite"):
        fit(output=run_folder, resume=True)
