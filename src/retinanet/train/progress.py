"""Callbacks that report the progress of steps and epochs, and stop training after `max_steps` or `patience`."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Final

import lightning as L
from lightning.pytorch.callbacks import Callback, EarlyStopping

from retinanet.progress import TrainingStatus, format_duration
from retinanet.train.metrics_file import last_epoch
from retinanet.train.output_files import report_progress
from retinanet.train.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from retinanet.train.metrics_file import MetricsFile
    from retinanet.train.time_plan import TimePlan


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


class ProgressReport(Callback):
    """Report one line per epoch, and show the status of the training run after each batch on rank 0.

    The line has the loss, the validation loss, the AP and the remaining time. The status has the loss that metrics.csv
    holds, so that the device does not wait for another reading.

    Args:
        metrics_file: callback that reads the losses.
        best_ap: function that returns the highest AP so far, below 0 for none.
        max_steps: largest number of optimiser steps; -1 for no limit.
        time_plan: plan of a training run with a time budget, which knows the remaining time.
    """

    def __init__(
        self,
        *,
        metrics_file: MetricsFile,
        best_ap: Callable[[], float],
        max_steps: int,
        time_plan: TimePlan | None = None,
    ) -> None:
        self.metrics_file = metrics_file
        self.best_ap = best_ap
        self.max_steps = max_steps
        self.time_plan = time_plan
        self.show: Callable[[TrainingStatus], None] = lambda status: None
        """Function that shows a status. By default, nothing is shown."""
        self.pace = Pace()
        self._evaluated = False
        self._losses: list[Tensor] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start to measure the first batch of the epoch."""
        self.pace.start()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Store the loss on its device: a transfer to the CPU would make the device wait. Show the status."""
        self._losses.append(pl_module.step_values["loss"])
        self.pace.end_batch(len(batch.images_N3HW) * trainer.world_size)
        if trainer.is_global_zero:
            self.show(self._status(trainer, batch_idx + 1))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start to measure the evaluation."""
        self.pace.begin_evaluation()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Show the status of the evaluation."""
        if trainer.is_global_zero:
            self.show(self._evaluation_status(trainer, batch_idx + 1))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record that this epoch was evaluated."""
        self._evaluated = True
        self.pace.end_evaluation()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the line."""
        losses, self._losses = [float(loss) for loss in self._losses], []
        if not trainer.is_global_zero:
            return
        values = trainer.callback_metrics
        epoch = trainer.current_epoch + 1
        line = f"epoch {epoch}/{max(epoch, self._epochs(trainer) or 0)}  loss {sum(losses) / max(1, len(losses)):.4f}"
        if self._evaluated:
            line += f"  val loss {float(values['val_loss']):.4f}"
            line += f"  AP {float(values['AP']):.3f}  AP50 {float(values['AP50']):.3f}"
        self._evaluated = False
        left = self._seconds_left(trainer, int(trainer.num_training_batches), is_evaluated=True)
        report_progress(line if left is None else f"{line}  {format_duration(left)} left")

    def _status(self, trainer: L.Trainer, done: int) -> TrainingStatus:
        """Return the status after a number of batches of the epoch."""
        best_ap = self.best_ap()
        steps_per_batch = 1 / trainer.accumulate_grad_batches
        return TrainingStatus(
            epoch=trainer.current_epoch + 1,
            epochs=self._epochs(trainer),
            step=math.ceil(done * steps_per_batch),
            steps=math.ceil(trainer.num_training_batches * steps_per_batch),
            loss=self.metrics_file.loss,
            best_ap=best_ap if best_ap >= 0 else None,
            images_per_second=self.pace.images_per_second,
            seconds_left=self._seconds_left(trainer, done),
        )

    def _evaluation_status(self, trainer: L.Trainer, done: int) -> TrainingStatus:
        """Return the status after a number of batches of an evaluation."""
        status = self._status(trainer, int(trainer.num_training_batches))
        epoch = last_epoch(trainer) + 1
        return dataclasses.replace(
            status, epoch=epoch, is_evaluating=True, step=done, steps=int(_evaluation_batches(trainer))
        )

    def _epochs(self, trainer: L.Trainer) -> int | None:
        """Return the number of epochs; None before the first plan of a time budget."""
        return trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None

    def _seconds_left(self, trainer: L.Trainer, done: int, *, is_evaluated: bool = False) -> float | None:
        """Return the remaining time in seconds; None while it is unknown.

        Args:
            trainer: Lightning's trainer.
            done: number of batches of the current epoch that are done.
            is_evaluated: whether the evaluation of the current epoch is done.
        """
        if self.time_plan is not None:
            return max(0.0, self.time_plan.budget - self.time_plan.elapsed())
        per_epoch = int(trainer.num_training_batches)
        batches = per_epoch * ((trainer.max_epochs or 0) - trainer.current_epoch) - done
        if self.max_steps > 0:
            batches = min(batches, (self.max_steps - trainer.global_step) * trainer.accumulate_grad_batches)
        batches = max(0, 0 if trainer.should_stop else batches)
        epochs = math.ceil((batches - (per_epoch - done)) / per_epoch) + (not is_evaluated)
        evaluations = math.ceil(max(0, epochs) / (trainer.check_val_every_n_epoch or 1))
        return self.pace.seconds_left(
            batches=batches, evaluations=evaluations, evaluation_batches=_evaluation_batches(trainer)
        )


def _evaluation_batches(trainer: L.Trainer) -> float:
    batches = trainer.num_val_batches
    return float(sum(batches) if isinstance(batches, list) else batches)
