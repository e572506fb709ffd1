"""Callback that writes metrics.csv."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import lightning as L
from lightning.pytorch.callbacks import Callback

from retinanet.train.output_files import CsvTable, is_rank_zero
from retinanet.train.validation_loss import VALIDATION_LOSSES

if TYPE_CHECKING:
    from pathlib import Path


COLUMNS: Final = (
    *("epoch", "step", "lr", "loss", "classification_loss", "box_loss", "positives_per_image"),
    *("AP", "AP50", "AP75", "APs", "APm", "APl"),
    *(*VALIDATION_LOSSES, "seconds"),
)
"""Columns of metrics.csv. Rows of training steps have empty columns of AP and validation losses. Rows of evaluations
have empty columns of training losses."""
FIRST_COLUMNS: Final = tuple(name for name in COLUMNS if name not in VALIDATION_LOSSES)
"""Columns in versions that stored no columns in their checkpoints."""
TRAIN_COLUMNS: Final = ("loss", "classification_loss", "box_loss", "positives_per_image")
EVALUATION_COLUMNS: Final = ("AP", "AP50", "AP75", "APs", "APm", "APl", *VALIDATION_LOSSES)


def last_epoch(trainer: L.Trainer) -> int:
    """Return the number of the epoch that was trained last, from 0. After training, Lightning has counted one more."""
    return trainer.current_epoch - (trainer.state.fn == "validate")


class MetricsFile(Callback):
    """Write RUN/metrics.csv: a row for step 1, a row every `log_every` steps, and a row for each evaluation.

    A resumed training run drops the rows of the steps that it repeats.
    """

    def __init__(self, *, path: Path, log_every: int) -> None:
        self.table = CsvTable(path, COLUMNS)
        self.log_every = log_every
        self.loss: float | None = None
        """Training loss of the latest row; None before the first row, and on other ranks than 0."""
        self._seconds_before = 0.0
        self._start = time.monotonic()
        self._last_step = -1
        self._resumed = False

    def state_dict(self) -> dict[str, Any]:
        """Return the training time, seconds, and the size of metrics.csv, bytes, with its columns."""
        return {"seconds": self.seconds(), "size": self.table.size(), "columns": list(COLUMNS)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the training time, and drop the rows that were written after the checkpoint."""
        self._seconds_before, self._resumed = state_dict["seconds"], True
        if is_rank_zero():
            self.table.truncate(state_dict["size"], columns=tuple(state_dict.get("columns", FIRST_COLUMNS)))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the header in a new training run."""
        if trainer.is_global_zero and not self._resumed:
            self.table.write_header()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a row of losses after an optimiser step, if a row is due."""
        step = trainer.global_step
        if step != self._last_step and (step % self.log_every == 0 or step == 1):
            self._write(trainer, TRAIN_COLUMNS)
        self._last_step = step

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write a row of AP values and validation losses."""
        self._write(trainer, EVALUATION_COLUMNS)

    def _write(self, trainer: L.Trainer, names: tuple[str, ...]) -> None:
        if not trainer.is_global_zero:
            return
        values = trainer.callback_metrics
        numbers = {name: float(values[name]) for name in names if name in values}
        self.loss = numbers.get("loss", self.loss)
        row: dict[str, Any] = {name: f"{value:.6g}" for name, value in numbers.items()}
        epoch = last_epoch(trainer)
        row |= {"epoch": epoch, "step": trainer.global_step, "seconds": f"{self.seconds():.1f}"}
        row["lr"] = f"{trainer.optimizers[0].param_groups[-1]['lr']:.6g}"
        self.table.append(row)

    def seconds(self) -> float:
        """Return the training time over all resumed parts, seconds."""
        return self._seconds_before + time.monotonic() - self._start
