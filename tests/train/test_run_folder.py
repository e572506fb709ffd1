"""A run's folder: an old run that is there already."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from retinanet.data import DataError
from retinanet.errors import ConfigError
from retinanet.train import OutputError, fit
from retinanet.train.detection_module import DetectionModule
from retinanet.train.run_folder import ASIDE
from tests.train.made_faults import SignalAt
from tests.train.made_trainer import rows
from tests.train.runs import Options, run, table


@pytest.mark.slow
def test_an_existing_run_is_not_overwritten(tiny, run_folder):
    before = (tiny["output"] / "last.ckpt").read_bytes()
    with pytest.raises(ConfigError, match=r"already holds a run .*--resume.*--overwrite"):
        fit(**tiny, max_steps=1)
    assert (tiny["output"] / "last.ckpt").read_bytes() == before
    fit(**tiny, max_steps=2, overwrite=True)
    assert rows(tiny["output"])[-1]["step"] == "2"


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
