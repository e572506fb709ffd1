"""Run folder: its files, its checks before training, and the safe replacement of an older run (`--overwrite`)."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any, Final

from lightning.pytorch.callbacks import Callback

from retinanet.errors import ConfigError
from retinanet.train.output_files import is_rank_zero, translate_os_errors

if TYPE_CHECKING:
    from pathlib import Path

    import lightning as L

    from retinanet.config import TrainConfig

FLIGHT_RECORD_FILE: Final = "nonfinite.pt"
"""Name of the flight record."""
RUN_FILES: Final = (
    *("best.ckpt", "last.ckpt", "metrics.csv", "config.yaml", FLIGHT_RECORD_FILE),
    *("imbalance.csv", "start.json", "evaluation.json", "detections.json", "report.html", "logger.json"),
)
"""Names of all files that belong to a training run."""
BACKUP_FOLDER: Final = "overwritten-run"
"""Folder in the run folder with the files of an older run, until the new run with `--overwrite` has completed a step.
If the folder still exists when a command starts, the new run failed before that step, and the older run is restored."""
DELETED_FOLDER: Final = "overwritten-run.partial"
"""Name of the backup folder while it is being deleted."""


def check_output(config: TrainConfig) -> bool:
    """Return whether the run folder has a checkpoint to resume from. Check that the folder can be used.

    Raises:
        ConfigError: the output path is a file or cannot be written, it holds a training run but neither `resume` nor
            `overwrite` is set, or `resume` is set and the folder holds no training run.
    """
    folder = config.folder.output
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output {folder} is a file, but must be a folder: choose another --output")
    existing = next(f for f in (folder, *folder.absolute().parents) if f.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(
            f"output {folder} cannot be written, because {existing} is read-only or not a folder: choose another "
            "--output"
        )
    if is_rank_zero():
        restore_backup(folder)
    present = [name for name in RUN_FILES if (folder / name).exists()]
    if config.run.resume:
        if not present:
            raise ConfigError(f"nothing to resume: {folder / 'last.ckpt'} does not exist; train without --resume")
        return (folder / "last.ckpt").exists()
    if present and not config.existing.overwrite and is_rank_zero():
        raise ConfigError(
            f"{folder} already holds a training run ({', '.join(present)}): use --resume to continue it, "
            "--overwrite to replace it, or choose another --output"
        )
    return False


def back_up_run(folder: Path) -> None:
    """Move the files and logger folders of an existing training run into the backup folder."""
    names = [*(name for name in RUN_FILES if (folder / name).exists()), *_logger_folders(folder)]
    if not names:
        return
    with translate_os_errors(folder):
        (folder / BACKUP_FOLDER).mkdir(exist_ok=True)
        for name in names:
            (folder / name).rename(folder / BACKUP_FOLDER / name)


def restore_backup(folder: Path) -> None:
    """Move the files of the backup folder back, if it exists. They replace files of the run that failed."""
    backup = folder / BACKUP_FOLDER
    if (folder / DELETED_FOLDER).is_dir():
        shutil.rmtree(folder / DELETED_FOLDER, ignore_errors=True)
    if not backup.is_dir():
        return
    with translate_os_errors(folder):
        for path in sorted(backup.iterdir()):
            target = folder / path.name
            if target.is_dir():
                shutil.rmtree(target)
            path.replace(target)
        backup.rmdir()


def _logger_folders(folder: Path) -> list[str]:
    """Return the names of the folders in which Lightning's loggers write."""
    patterns = ("tensorboard", "csv", "csv-*")
    return [path.name for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_dir()]


class ReplaceRun(Callback):
    """Delete the backup of an overwritten run after the first step of the new run, or restore it after a failure."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Delete the backup after step 1. The rename comes first, so that a half-deleted backup is never restored."""
        if trainer.is_global_zero and trainer.global_step == 1 and (self.folder / BACKUP_FOLDER).is_dir():
            with translate_os_errors(self.folder):
                (self.folder / BACKUP_FOLDER).rename(self.folder / DELETED_FOLDER)
            shutil.rmtree(self.folder / DELETED_FOLDER, ignore_errors=True)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Restore the overwritten run if the new run failed before its first step."""
        if trainer.is_global_zero:
            restore_backup(self.folder)
