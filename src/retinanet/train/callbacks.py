"""What a run writes: checkpoints, metrics.csv, and a line per epoch on the terminal."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import lightning as L
from lightning.pytorch.callbacks import Callback

from retinanet.config import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from retinanet.train.module import DetectionModule

COLUMNS: Final = (
    *("epoch", "step", "lr", "loss", "classification_loss", "box_loss", "positives_per_image"),
    *("AP", "AP50", "AP75", "APs", "APm", "APl", "seconds"),
)
"""Of metrics.csv. Rows of training steps leave the AP columns empty, rows of evaluations the losses."""

TRAIN_COLUMNS: Final = ("loss", "classification_loss", "box_loss", "positives_per_image")
AP_COLUMNS: Final = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class OutputError(UserError):
    """The run's folder cannot be written: a full disk, a quota, a folder made read-only under way."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what could not be written and how to go on, where the system only says why."""
    try:
        yield
    except OSError as error:
        raise output_error(error, path) from error


def output_error(error: OSError, path: Path) -> OutputError:
    """Return the error in words, and what is safe."""
    folder = path if path.is_dir() else path.parent
    saved = folder / "last.ckpt"
    safe = f"{saved} is whole" if saved.exists() else "nothing was saved yet"
    how = f"when it can be written again, `retinanet train --resume -o {folder}` goes on"
    return OutputError(f"{path} cannot be written: {error.strerror or error}. {safe}; {how}")


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the target and rename, so that the file is whole or not there.

    Raises:
        OutputError: a full disk, a read-only folder; what was there before is as it was.
    """
    temporary = path.with_name(path.name + ".part")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
            put_in_place(temporary, path)
        except OSError:
            _remove(temporary)  # half a file on a full disk helps nobody
            raise


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename a file that is written to its name, once it is on the disk: whole also after a power cut."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # read-only by now
        return


class Table:
    """A CSV file of a run that grows row by row; a checkpoint remembers how far it was written.

    Args:
        path: of the file.
        columns: of it.
    """

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path = path
        self.columns = columns

    def begin(self) -> None:
        """Write the header, over whatever is there."""
        write_atomically(self.path, (",".join(self.columns) + "\r\n").encode())

    def add(self, row: dict[str, Any]) -> None:
        """Write a row."""
        with writing(self.path), self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def size(self) -> int:
        """Return the bytes written so far, which are on the disk then."""
        if not self.path.exists():
            return 0
        with writing(self.path), self.path.open("rb+") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def cut(self, size: int) -> None:
        """Drop what was written after a checkpoint: a run that goes on from it writes these rows anew."""
        if not self.path.exists() or self.path.stat().st_size < size or not size:
            self.begin()  # the user removed it; the rows from here on are better than none
            return
        with writing(self.path):
            os.truncate(self.path, size)


class Checkpoints(Callback):
    """last.ckpt after every epoch; best.ckpt, evaluation.json and detections.json after every one with a higher AP.

    All are whole at any moment: they are written beside their target and renamed. The files of the best epoch come
    before last.ckpt: a run that dies between the two repeats the epoch, and with it these files.
    """

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder
        self.best_ap = -1.0
        self.best_epoch = -1
        self.unevaluated = False
        self._stopped = False
        self._evaluated = False
        self._evaluating = False

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        return {
            "best_ap": self.best_ap,
            "best_epoch": self.best_epoch,
            "unevaluated": self.unevaluated,
            "stopped": self._stopped,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.best_ap, self.best_epoch = state_dict["best_ap"], state_dict["best_epoch"]
        self.unevaluated, self._stopped = state_dict["unevaluated"], state_dict["stopped"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Do not go on with a run that ended early (`patience`, `max_steps`) and died while it wrote its report."""
        if self._stopped:
            trainer.should_stop = True

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on the running average takes the place of the weights."""
        self._evaluating = trainer.state.fn == "fit"

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The weights are back: their average has been told of the end before this."""
        self._evaluating = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember that this epoch has an AP."""
        self._evaluated = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: DetectionModule) -> None:  # type: ignore[override]
        """Save. Training and its evaluation are over at this point, so a resumed run starts with the next epoch."""
        best = self._evaluated and self._improves(trainer)
        self.unevaluated = not self._evaluated
        self._evaluated = False
        self._stopped = bool(trainer.should_stop)
        self.save(trainer, best_of=pl_module if best else None)

    def save(self, trainer: L.Trainer, *, best_of: DetectionModule | None = None) -> None:
        """Write last.ckpt, on all ranks at once; between two steps or while evaluating.

        Args:
            trainer: the run's.
            best_of: the module, where its last evaluation was the best.

        Raises:
            OutputError: the disk is full or read-only; the last.ckpt that was there is as it was.
        """
        last, temporary = self.folder / "last.ckpt", self.folder / "last.ckpt.part"
        with writing(last):
            try:
                trainer.save_checkpoint(temporary)
                if trainer.is_global_zero:
                    if best_of is not None:
                        self._keep_best(best_of, temporary)
                    put_in_place(temporary, last)
            except (OSError, OutputError):
                _remove(temporary)
                raise

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """While evaluating, put down that the evaluation is still to come, and undo the change of weights for it.

        Lightning's state within an evaluation would skip the pictures that are done, and their detections are lost.
        """
        if not self._evaluating:
            return
        fresh = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"] = {
            "total": dict(fresh),
            "current": dict(fresh),
            "is_last_batch": False,
        }
        if "current_model_state" in checkpoint:
            names = ("current_model_state", "state_dict")
            checkpoint.update(zip(names, [checkpoint[name] for name in reversed(names)], strict=True))

    def settle(self, trainer: L.Trainer, pl_module: DetectionModule) -> None:
        """After an evaluation of the last weights outside the training loop (`evaluate_every`): are they best?"""
        if self._improves(trainer) and trainer.is_global_zero:
            self._keep_best(pl_module, self.folder / "last.ckpt")

    def _improves(self, trainer: L.Trainer) -> bool:
        """Return whether the last evaluation beats all before, and remember it if so."""
        ap = float(trainer.callback_metrics["AP"])
        if ap <= self.best_ap:
            return False
        self.best_ap, self.best_epoch = ap, trainer.current_epoch
        return True

    def _keep_best(self, pl_module: DetectionModule, checkpoint: Path) -> None:
        """Give a checkpoint a second name by a hard link, or copy it where the disk has no links."""
        numbers = pl_module.metrics.to_json() if pl_module.metrics else {}
        report = {"epoch": self.best_epoch, **numbers}
        write_atomically(self.folder / "detections.json", json.dumps(pl_module.results).encode())
        write_atomically(self.folder / "evaluation.json", json.dumps(report, indent=2).encode())
        temporary = self.folder / "best.ckpt.part"
        with writing(self.folder / "best.ckpt"):
            temporary.unlink(missing_ok=True)
            try:
                os.link(checkpoint, temporary)
            except OSError:
                shutil.copyfile(checkpoint, temporary)
            put_in_place(temporary, self.folder / "best.ckpt")


class StepLimit(Callback):
    """End the run after `max_steps` optimiser steps.

    Lightning's own `max_steps` makes it resume by steps instead of epochs, and then an epoch that is over counts twice.
    """

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count."""
        if trainer.global_step >= self.max_steps:
            trainer.should_stop = True


class MetricsFile(Callback):
    """RUN/metrics.csv: a row every `log_every` steps and one per evaluation. A resumed run cuts off what it repeats."""

    def __init__(self, *, path: Path, log_every: int) -> None:
        self.table = Table(path, COLUMNS)
        self.log_every = log_every
        self._seconds_before = 0.0
        self._start = time.monotonic()
        self._last_step = -1
        self._resumed = False

    def state_dict(self) -> dict[str, Any]:
        """Return the time spent, and how far the file is written."""
        return {"seconds": self.seconds(), "size": self.table.size()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back, and cut off the rows after it."""
        self._seconds_before, self._resumed = state_dict["seconds"], True
        if rank_zero():
            self.table.cut(state_dict["size"])

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the header of a new run's file."""
        if trainer.is_global_zero and not self._resumed:
            self.table.begin()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a row of losses, after the optimiser's step."""
        step = trainer.global_step
        if step != self._last_step and (step % self.log_every == 0 or step == 1):
            self._write(trainer, TRAIN_COLUMNS)
        self._last_step = step

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write a row of APs."""
        self._write(trainer, AP_COLUMNS)

    def _write(self, trainer: L.Trainer, names: tuple[str, ...]) -> None:
        if not trainer.is_global_zero:
            return
        values = trainer.callback_metrics
        row: dict[str, Any] = {name: f"{float(values[name]):.6g}" for name in names if name in values}
        row |= {"epoch": trainer.current_epoch, "step": trainer.global_step, "seconds": f"{self.seconds():.1f}"}
        row["lr"] = f"{trainer.optimizers[0].param_groups[-1]['lr']:.6g}"
        self.table.add(row)

    def seconds(self) -> float:
        """Return the time spent on training, over all resumed parts."""
        return self._seconds_before + time.monotonic() - self._start


class EpochLine(Callback):
    """One line per epoch, so that a log file tells what happened too; says what is left."""

    def __init__(self) -> None:
        self._start = 0.0
        self._first_epoch = 0
        self._evaluated = False
        self._losses: list[float] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember that this epoch has an AP of its own."""
        self._evaluated = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()
        self._first_epoch = trainer.current_epoch

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss, on its device: reading it here would make the device wait."""
        self._losses.append(trainer.callback_metrics["loss"])  # type: ignore[arg-type]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line."""
        losses, self._losses = [float(loss) for loss in self._losses], []
        if not trainer.is_global_zero:
            return
        values = trainer.callback_metrics
        epochs = trainer.max_epochs or 0
        done = trainer.current_epoch + 1
        seconds = time.monotonic() - self._start
        left = seconds / (done - self._first_epoch) * (epochs - done)
        line = f"epoch {done}/{epochs}  loss {sum(losses) / max(1, len(losses)):.4f}"
        if self._evaluated:
            line += f"  AP {float(values['AP']):.3f}  AP50 {float(values['AP50']):.3f}"
        self._evaluated = False
        print(f"{line}  {clock(seconds)} gone, {clock(left)} left", flush=True)


def clock(seconds: float) -> str:
    """Return 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rank_zero() -> bool:
    """Return whether this is the process that writes the run's files."""
    from lightning.pytorch.utilities import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0
