"""What a run writes: checkpoints, metrics.csv, and a line per epoch on the terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any, Final

import lightning as L
from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    from pathlib import Path

    from retinanet.train.module import DetectionModule

COLUMNS: Final = (
    *("epoch", "step", "lr", "loss", "classification_loss", "box_loss", "positives_per_image"),
    *("AP", "AP50", "AP75", "APs", "APm", "APl", "seconds"),
)
"""Of metrics.csv. Rows of training steps leave the AP columns empty, rows of evaluations the losses."""

TRAIN_COLUMNS: Final = ("loss", "classification_loss", "box_loss", "positives_per_image")
AP_COLUMNS: Final = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the target and rename, so that the file is whole or not there."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def kept_rows(path: Path, step: int) -> list[list[str]]:
    """Return the rows of a CSV file of a run (epoch, step, ...) before `step`: a resumed run writes the others anew.

    A last row that the end of the run cut off is dropped.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    return [row for row in rows if len(row) == len(header) and int(row[1]) < step]


class Checkpoints(Callback):
    """last.ckpt after every epoch; best.ckpt, evaluation.json and detections.json after every one with a higher AP.

    All are whole at any moment: they are written beside their target and renamed.
    """

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder
        self.best_ap = -1.0
        self.best_epoch = -1
        self._evaluated = False
        self.unevaluated = False

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        return {"best_ap": self.best_ap, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.best_ap, self.best_epoch = state_dict["best_ap"], state_dict["best_epoch"]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember that this epoch has an AP."""
        self._evaluated = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: DetectionModule) -> None:  # type: ignore[override]
        """Save. Training and its evaluation are over at this point, so a resumed run starts with the next epoch."""
        best = self._evaluated and self._improves(trainer)
        self.unevaluated = not self._evaluated
        self._evaluated = False
        temporary = self.folder / "last.ckpt.part"
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            temporary.replace(self.folder / "last.ckpt")
            if best:
                self._keep_best(pl_module)

    def settle(self, trainer: L.Trainer, pl_module: DetectionModule) -> None:
        """After an evaluation of the last weights outside the training loop (`max_steps` ended it): are they best?"""
        if self._improves(trainer) and trainer.is_global_zero:
            self._keep_best(pl_module)

    def _improves(self, trainer: L.Trainer) -> bool:
        """Return whether the last evaluation beats all before, and remember it if so."""
        ap = float(trainer.callback_metrics["AP"])
        if ap <= self.best_ap:
            return False
        self.best_ap, self.best_epoch = ap, trainer.current_epoch
        return True

    def _keep_best(self, pl_module: DetectionModule) -> None:
        """Give last.ckpt a second name by a hard link, or copy it where the disk has no links."""
        temporary = self.folder / "best.ckpt.part"
        temporary.unlink(missing_ok=True)
        try:
            os.link(self.folder / "last.ckpt", temporary)
        except OSError:
            shutil.copyfile(self.folder / "last.ckpt", temporary)
        temporary.replace(self.folder / "best.ckpt")
        numbers = pl_module.metrics.to_json() if pl_module.metrics else {}
        report = {"epoch": self.best_epoch, **numbers}
        write_atomically(self.folder / "evaluation.json", json.dumps(report, indent=2).encode())
        write_atomically(self.folder / "detections.json", json.dumps(pl_module.results).encode())


class MetricsFile(Callback):
    """RUN/metrics.csv: a row every `log_every` steps and one per evaluation. A resumed run cuts off what it repeats."""

    def __init__(self, *, path: Path, log_every: int) -> None:
        self.path = path
        self.log_every = log_every
        self._seconds_before = 0.0
        self._start = time.monotonic()
        self._last_step = -1

    def state_dict(self) -> dict[str, Any]:
        """Return the time spent."""
        return {"seconds": self.seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self._seconds_before = state_dict["seconds"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the header, or keep the rows up to the step that the run goes on from."""
        self._start = time.monotonic()
        self._last_step = trainer.global_step
        if not trainer.is_global_zero:
            return
        rows = kept_rows(self.path, trainer.global_step + 1)
        text = io.StringIO()
        csv.writer(text).writerows([COLUMNS, *rows])
        write_atomically(self.path, text.getvalue().encode())

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
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)

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
