"""Callbacks that report each epoch and end the run after `max_steps`."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from retinanet.train.output_files import report_progress


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
        report_progress(f"{line}  {clock(seconds)} gone, {clock(left)} left")


def clock(seconds: float) -> str:
    """Return 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
