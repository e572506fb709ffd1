"""A run's folder: which files are the run's, and how one run takes the place of another without losing it."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any, Final

from lightning.pytorch.callbacks import Callback

from retinanet.errors import ConfigError
from retinanet.train.output_files import rank_zero, writing

if TYPE_CHECKING:
    from pathlib import Path

    import lightning as L

    from retinanet.config import TrainConfig

RECORD: Final = "nonfinite.pt"
OUR_FILES: Final = (
    *("best.ckpt", "last.ckpt", "metrics.csv", "config.yaml", RECORD),
    *("imbalance.csv", "start.json", "evaluation.json", "detections.json", "report.html", "logger.json"),
)
ASIDE: Final = "overwritten-run"
"""Folder within the run's: where the files of a run wait that is to be overwritten, until the new one has done a step.
Where it is still there when a command starts, that new run came to nothing, and the old one is put back."""
GONE: Final = "overwritten-run.partial"


def check_output(config: TrainConfig) -> bool:
    """Return whether there is a run to go on with; refuse a folder that is in use or that cannot be written.

    Raises:
        ConfigError: a file, a read-only folder, a run that is already there, or none to resume.
    """
    folder = config.folder.output
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output {folder} is a file; it must be a folder")
    there = next(f for f in (folder, *folder.absolute().parents) if f.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"output {folder} cannot be written: {there} is read-only or not a folder")
    if rank_zero():
        put_back(folder)
    present = [name for name in OUR_FILES if (folder / name).exists()]
    if config.run.resume:
        if not present:
            raise ConfigError(f"nothing to resume: no {folder / 'last.ckpt'}")
        return (folder / "last.ckpt").exists()
    if present and not config.existing.overwrite and rank_zero():
        raise ConfigError(
            f"{folder} already holds a run ({', '.join(present)}): give --resume to go on with it, "
            "--overwrite to replace it, or another folder"
        )
    return False


def put_aside(folder: Path) -> None:
    """Move the files of the run that is there out of the way."""
    names = [*(name for name in OUR_FILES if (folder / name).exists()), *_folders(folder)]
    if not names:
        return
    with writing(folder):
        (folder / ASIDE).mkdir(exist_ok=True)
        for name in names:
            (folder / name).rename(folder / ASIDE / name)


def put_back(folder: Path) -> None:
    """Undo `put_aside` where the run that was to follow never began; else do nothing."""
    aside = folder / ASIDE
    if (folder / GONE).is_dir():
        shutil.rmtree(folder / GONE, ignore_errors=True)
    if not aside.is_dir():
        return
    with writing(folder):
        for path in sorted(aside.iterdir()):
            target = folder / path.name
            if target.is_dir():
                shutil.rmtree(target)
            path.replace(target)
        aside.rmdir()


def _folders(folder: Path) -> list[str]:
    patterns = ("tensorboard", "csv", "csv-*")  # where Lightning's loggers write
    return [path.name for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_dir()]


class ReplaceRun(Callback):
    """Drop the run that was overwritten once the new one has done its first step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Drop it in one rename: from then on it does not come back."""
        if trainer.is_global_zero and trainer.global_step == 1 and (self.folder / ASIDE).is_dir():
            with writing(self.folder):
                (self.folder / ASIDE).rename(self.folder / GONE)
            shutil.rmtree(self.folder / GONE, ignore_errors=True)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Put the old run back where the new one did not get that far."""
        if trainer.is_global_zero:
            put_back(self.folder)
