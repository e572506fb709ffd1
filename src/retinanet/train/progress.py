"""Callbacks that show the progress of steps and epochs, and stop training after `max_steps` or `patience`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import lightning as L
from lightning.pytorch.callbacks import Callback, EarlyStopping, RichProgressBar

from retinanet.train.output_files import report_progress

if TYPE_CHECKING:
    from torch import Tensor

    from retinanet.train.time_plan import TimePlan


class LossBar(RichProgressBar):
    """Progress bar of the terminal. It reads the losses only every `log_every` steps: a GPU waits for each reading."""

    def __init__(self, log_every: int) -> None:
        super().__init__(leave=False)
        self.log_every = log_every
        self._shown: dict[str, float] = {}

    def get_metrics(self, trainer: L.Trainer, pl_module: Any) -> Any:
        """Return the loss and the number of positives per image of the last step that was read."""
        values = pl_module.step_values
        if values and (not self._shown or trainer.global_step % self.log_every == 0):
            self._shown = {name: float(values[name]) for name in ("loss", "positives_per_image")}
        return self._shown


class StepLimit(Callback):
    """Stop training after `max_steps` optimiser steps.

    Lightning's own `max_steps` is not used: with it, a resumed run counts a completed epoch twice.
    """

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Request the stop after the last step."""
        if trainer.global_step >= self.max_steps:
            trainer.should_stop = True


class Patience(EarlyStopping):
    """Stop training after `patience` evaluations without a better AP.

    Lightning's own class replaces its patience by the value in the checkpoint when a training run is resumed.
    """

    STATE_KEY: Final = "EarlyStopping{'monitor': 'AP', 'mode': 'max'}"
    """Key of the state in checkpoints of all versions."""

    def __init__(self, patience: int) -> None:
        super().__init__("AP", mode="max", patience=patience, check_on_train_epoch_end=False)

    @property
    def state_key(self) -> str:
        """Return the key of Lightning's own class, which checkpoints of earlier versions hold."""
        return self.STATE_KEY

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best AP and the number of evaluations since, without the patience."""
        super().load_state_dict({**state_dict, "patience": self.patience})


class EpochLine(Callback):
    """Report one line per epoch with the loss, the validation loss, the AP, the elapsed time and the remaining time.

    Args:
        time_plan: plan of a training run with a time budget, which knows the remaining time.
    """

    def __init__(self, time_plan: TimePlan | None = None) -> None:
        self.time_plan = time_plan
        self._start = 0.0
        self._first_epoch = 0
        self._evaluated = False
        self._losses: list[Tensor] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record that this epoch was evaluated."""
        self._evaluated = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()
        self._first_epoch = trainer.current_epoch

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Store the loss on its device: a transfer to the CPU would make the device wait."""
        self._losses.append(pl_module.step_values["loss"])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the line."""
        losses, self._losses = [float(loss) for loss in self._losses], []
        if not trainer.is_global_zero:
            return
        values = trainer.callback_metrics
        epochs = trainer.max_epochs or 0
        epoch = trainer.current_epoch + 1
        elapsed = time.monotonic() - self._start
        remaining = elapsed / (epoch - self._first_epoch) * (epochs - epoch)
        if self.time_plan is not None:
            remaining = max(0.0, self.time_plan.budget - self.time_plan.elapsed())
            epochs = max(epochs, epoch)
        line = f"epoch {epoch}/{epochs}  loss {sum(losses) / max(1, len(losses)):.4f}"
        if self._evaluated:
            line += f"  val loss {float(values['val_loss']):.4f}"
            line += f"  AP {float(values['AP']):.3f}  AP50 {float(values['AP50']):.3f}"
        self._evaluated = False
        report_progress(f"{line}  elapsed {format_duration(elapsed)}, remaining {format_duration(remaining)}")


def format_duration(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds (1:02:03), or as minutes and seconds (2:03)."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
