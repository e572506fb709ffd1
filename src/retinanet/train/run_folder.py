"""Run folder: its files, its checks before training, and the safe replacement of an older run (`--overwrite`)."""

from __future__ import annotations

import shlex
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from lightning.pytorch.callbacks import Callback

from retinanet.errors import ConfigError, list_names
from retinanet.files import partial_path
from retinanet.train.output_files import OutputError, is_rank_zero, translate_os_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import lightning as L

    from retinanet.config import TrainConfig

FLIGHT_RECORD_FILE: Final = "nonfinite.pt"
"""Name of the flight record."""
SAMPLING_FILE: Final = "sampling.json"
"""Name of the file with the expected number of times that an epoch uses each class."""
TIME_BUDGET_FILE: Final = "time-budget.json"
"""Name of the file with the steps and the time of a training run with a time budget."""
ANCHORS_FILE: Final = "anchors.json"
"""Name of the file with the choice of the anchors; a run with given anchors has none."""
RUN_FILES: Final = (
    *("best.ckpt", "last.ckpt", "metrics.csv", "config.yaml", FLIGHT_RECORD_FILE),
    *("imbalance.csv", "start.json", "evaluation.json", "detections.json", "report.html", "logger.json"),
    *(SAMPLING_FILE, TIME_BUDGET_FILE, ANCHORS_FILE),
)
"""Names of all files that belong to a training run."""
RESUME_CHANGES: Final = ("config.yaml", "metrics.csv", "imbalance.csv", "logger.json", "start.json", SAMPLING_FILE)
"""Files that a resumed training run changes before its first step."""
BACKUP_FOLDER: Final = "overwritten-run"
"""Folder in the run folder with the files that `--overwrite` replaces or that `--resume` changes, until the started run
has completed a step. If the folder still exists when a command starts, that run was killed before its first step, and
the files are restored."""
DELETED_FOLDER: Final = "overwritten-run.partial"
"""Name of the backup folder while it is being deleted."""


def files_of_run(folder: Path) -> list[str]:
    """Return the names of the training run's files in a folder.

    A flight record alone counts as no training run, because a run that failed at its first step leaves only this file.
    """
    present = [name for name in RUN_FILES if (folder / name).exists()]
    return [] if present == [FLIGHT_RECORD_FILE] else present


def check_run_files(config: TrainConfig) -> Path | None:
    """Return the checkpoint to resume from: last.ckpt, else best.ckpt; None for none. The folder does not change.

    If last.ckpt is lost, best.ckpt holds the complete state of the training run after its best epoch.

    Raises:
        ConfigError: the folder holds a training run but neither `resume` nor `overwrite` is set, or `resume` is set and
            the folder holds no training run.
    """
    folder = config.folder.output
    present = files_of_run(folder)
    if config.run.resume:
        if not present:
            raise ConfigError(f"nothing to resume: {folder / 'last.ckpt'} does not exist; train without --resume")
        return next((folder / name for name in ("last.ckpt", "best.ckpt") if name in present), None)
    if present and not config.existing.overwrite and is_rank_zero():
        raise ConfigError(
            f"the folder already holds a training run: {folder} ({list_names(present, 3)}). Use --resume to "
            "continue it, --overwrite to replace it, or choose another --output"
        )
    return None


def continue_from_best(last: Path) -> str:
    """Return what to do with a training run whose last.ckpt is lost: best.ckpt holds the state of its best epoch."""
    best = last.with_name("best.ckpt")
    if not best.is_file() or (last.is_file() and best.samefile(last)):
        return "Start the training run again: --overwrite replaces the files of this run"
    copy = shlex.join(("cp", str(best), str(last)))
    return f"best.ckpt holds the training run up to its best epoch. To resume from that epoch, first: {copy}"


def back_up_run(folder: Path) -> None:
    """Move the files and logger folders of an existing training run into the backup folder."""
    names = [*(name for name in RUN_FILES if (folder / name).exists()), *_logger_folders(folder)]
    if not names:
        return
    with translate_os_errors(folder):
        (folder / BACKUP_FOLDER).mkdir(exist_ok=True)
        for name in names:
            (folder / name).rename(folder / BACKUP_FOLDER / name)


def back_up_tables(folder: Path) -> None:
    """Copy the files of a training run that a resume changes before its first step into the backup folder."""
    with translate_os_errors(folder):
        (folder / BACKUP_FOLDER).mkdir(exist_ok=True)
        for name in RESUME_CHANGES:
            if (folder / name).exists():
                shutil.copy2(folder / name, folder / BACKUP_FOLDER / name)


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


class ReversibleStart(Callback):
    """Undo every change to the run folder if training fails before its first step.

    The folder then is as if the command had not been started, so that the corrected command works. Only a flight record
    of the failed step is kept.

    Args:
        config: options of the training run.
        resume: whether training continues from last.ckpt, which never changes before the first step.
    """

    def __init__(self, config: TrainConfig, *, resume: bool) -> None:
        self.folder = config.folder.output
        self.overwrite = config.existing.overwrite
        self.resume = resume
        self.has_started = False
        self._start_step = 0

    @contextmanager
    def undo_on_failure(self) -> Iterator[None]:
        """Back up the files of an earlier run on entry. Undo all changes if the context fails before the first step."""
        if not is_rank_zero():
            yield
            return
        before: set[Path] | None = None
        try:
            if self.overwrite:
                back_up_run(self.folder)
            before = _run_paths(self.folder)
            if self.resume:
                back_up_tables(self.folder)
            yield
        except BaseException:
            if not self.has_started:
                with suppress(OSError, OutputError):  # a disk that has failed; the next command restores the backup
                    if before is not None:
                        _delete(_run_paths(self.folder) - before)
                    restore_backup(self.folder)
            raise
        self._keep_changes()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Store the number of steps that a resumed training run has done."""
        self._start_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the changes after the first step."""
        if trainer.global_step > self._start_step:
            self._keep_changes()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the changes from the first evaluation on, in which a resumed training run may save a checkpoint."""
        self._keep_changes()

    def _keep_changes(self) -> None:
        """Delete the backup. The rename comes first, so that a half-deleted backup is never restored."""
        if self.has_started:
            return
        self.has_started = True
        if is_rank_zero() and (self.folder / BACKUP_FOLDER).is_dir():
            with translate_os_errors(self.folder):
                (self.folder / BACKUP_FOLDER).rename(self.folder / DELETED_FOLDER)
            shutil.rmtree(self.folder / DELETED_FOLDER, ignore_errors=True)


def _run_paths(folder: Path) -> set[Path]:
    """Return the files of a training run, its logger folders and their content, without the flight record."""
    files = {folder / name for name in RUN_FILES if name != FLIGHT_RECORD_FILE}
    files |= {partial_path(path) for path in files}
    loggers = [folder / name for name in _logger_folders(folder)]
    return {path for path in files if path.exists()} | {p for logger in loggers for p in (logger, *logger.iterdir())}


def _delete(paths: set[Path]) -> None:
    for path in sorted(paths, reverse=True):  # the content of a folder before the folder
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
