"""Callback that ends a training run after its time budget, with a complete schedule. `TimePlan` makes the plan."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any, Final

import torch
from lightning.pytorch.callbacks import Callback

from retinanet.config import given_options
from retinanet.errors import ConfigError
from retinanet.parse import parse_duration
from retinanet.progress import format_duration
from retinanet.train.output_files import is_rank_zero, report_progress, write_output
from retinanet.train.time_plan import RunShape, TimePlan

if TYPE_CHECKING:
    from pathlib import Path

    import lightning as L

    from retinanet.config import TrainConfig
    from retinanet.data import Batch
    from retinanet.train.detection_module import DetectionModule

NEVER: Final = 10**9
"""Number of epochs between two evaluations that prevents the evaluation of an epoch."""
FEW_STEPS: Final = 100
"""A plan with fewer steps than this is reported with the time that this number of steps would take."""


def check_length_options(config: TrainConfig) -> None:
    """Raise `ConfigError` if `time_budget` is given together with `epochs` or `max_steps`."""
    budget = config.schedule.time_budget
    if budget is None:
        return
    other = "epochs" if "epochs" in given_options(config) else "max_steps" if config.schedule.max_steps > 0 else None
    if other is not None:
        value = getattr(config.schedule, other)
        raise ConfigError(
            f"time_budget and {other} exclude each other, found time_budget {budget} and {other} {value}: the time "
            f"budget sets the number of epochs and steps. Remove one of the two, also from a file of options"
        )


def make_time_plan(config: TrainConfig, started: float) -> TimePlan | None:
    """Return the plan of a training run with a time budget; None without a budget.

    Args:
        config: options of the training run.
        started: value of `time.monotonic` at the start of the command.
    """
    if config.schedule.time_budget is None:
        return None
    plan = TimePlan(parse_duration(config.schedule.time_budget), clock=time.monotonic, started=started)
    plan.shape = RunShape(
        steps_per_epoch=1, warmup_steps=config.schedule.warmup_steps, evaluate_every=config.run.evaluate_every
    )
    return plan


class TimeBudget(Callback):
    """Measure steps and evaluations, choose the epochs to evaluate, and stop after the last planned step.

    `trainer.max_epochs` always is the planned number of epochs, and -1 before the first plan. `DetectionModule` tells
    the plan the end of each step, before it sets the learning rate.

    Args:
        plan: plan of the training run.
        path: file for the result, see `write_result`.
    """

    def __init__(self, plan: TimePlan, *, path: Path) -> None:
        self.plan = plan
        self.path = path
        self._batch_end = 0.0
        self._waits: list[float] = []
        self._is_reported = False

    def state_dict(self) -> dict[str, Any]:
        """Return the plan and the used time."""
        return self.plan.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the plan of the checkpoint."""
        self.plan.load_state_dict(state_dict)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start to measure.

        Raises:
            ConfigError: the start has already taken the whole budget of a new training run.
        """
        plan = self.plan
        plan.share = trainer.strategy.broadcast
        (elapsed,) = plan.share([plan.elapsed()])
        if elapsed >= plan.budget and trainer.global_step == 0:
            raise ConfigError(
                f"time_budget must be longer than the start of training, which took {elapsed:.0f} s, found "
                f"{plan.budget:.0f} s: give at least {_round_up(2 * elapsed + 30)}"
            )
        steps_per_epoch = math.ceil(int(trainer.num_training_batches) / trainer.accumulate_grad_batches)
        shape = plan.shape
        plan.begin(
            RunShape(
                steps_per_epoch=steps_per_epoch, warmup_steps=shape.warmup_steps, evaluate_every=shape.evaluate_every
            )
        )
        self._batch_end = plan.clock()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Measure the wait for the batch, which an evaluation has, too."""
        self._waits = [*self._waits[-4:], self.plan.clock() - self._batch_end]

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: DetectionModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Stop after the last planned step, or decide whether the epoch is evaluated."""
        plan, step = self.plan, trainer.global_step
        if not plan.evaluations and batch_idx in {0, 4} and trainer.current_epoch == 0:
            self._estimate_evaluation(trainer, pl_module, batch)
        if plan.total_steps is not None:
            done = math.ceil((batch_idx + 1) / trainer.accumulate_grad_batches)
            left = max(0, plan.total_steps - step)
            epochs = trainer.current_epoch + max(1, math.ceil((done + left) / plan.shape.steps_per_epoch))
            trainer.fit_loop.max_epochs = epochs
            self._report_plan()
        if plan.is_finished(step):
            trainer.should_stop = True
            trainer.check_val_every_n_epoch = 1
        elif trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            trainer.check_val_every_n_epoch = 1 if plan.should_evaluate(step, trainer.current_epoch) else NEVER
        self._batch_end = plan.clock()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Do not count an evaluation as a wait for a batch."""
        self._batch_end = self.plan.clock()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start to measure an evaluation."""
        if trainer.state.fn == "fit":
            self.plan.begin_evaluation()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Store the duration of the evaluation."""
        if trainer.state.fn == "fit":
            self.plan.end_evaluation()

    def _estimate_evaluation(self, trainer: L.Trainer, pl_module: DetectionModule, batch: Batch) -> None:
        """Estimate the duration of an evaluation from one on a training batch, whose detections are dropped."""
        begin, modes = self.plan.clock(), {module: module.training for module in pl_module.modules()}
        pl_module.eval()
        try:
            with torch.no_grad(), trainer.precision_plugin.val_step_context():
                pl_module.validation_step(batch, 0)  # compiles and tunes kernels
                second = self.plan.clock()
                pl_module.validation_step(batch, 0)
        finally:
            for module, mode in modes.items():
                module.training = mode
            pl_module.on_validation_epoch_start()  # deletes the detections
        end = self.plan.clock()
        wait = sum(self._waits[1:]) / len(self._waits[1:]) if len(self._waits) > 1 else 0.0
        batches = trainer.num_val_batches
        count = sum(batches) if isinstance(batches, list) else batches
        self.plan.estimate_evaluation(float(count) * (end - second + wait), measured_in=end - begin)

    def _report_plan(self) -> None:
        if not self._is_reported and self.plan.step_seconds > 0:  # after a resume, first measure
            self._is_reported = True
            report_progress(f"time budget: {self.plan_sentence()}")
            if (total := self.plan.total_steps or 0) < FEW_STEPS:
                plan = self.plan
                needed = plan.startup_seconds + FEW_STEPS * plan.step_seconds + plan.evaluation_seconds
                report_progress(
                    f"the time budget is short: only {total} steps fit. {FEW_STEPS} steps would need a --time-budget "
                    f"of at least {_round_up(1.05 * needed)}"
                )

    def plan_sentence(self) -> str:
        """Return the current plan as a sentence, without a full stop."""
        plan = self.plan
        total = plan.total_steps or 0
        epochs = total / plan.shape.steps_per_epoch
        return (
            f"{format_duration(plan.budget)} fit {epochs:.1f} epochs, {total:,} steps: start "
            f"{plan.startup_seconds:.0f} s, {plan.step_seconds:.2f} s per step, "
            f"about {plan.evaluation_seconds:.1f} s per evaluation"
        )

    def write_result(self, steps: int) -> None:
        """Report the used time, and write it into the run folder with the sentence for the report.

        Args:
            steps: number of optimiser steps done.
        """
        if not is_rank_zero():
            return
        plan = self.plan
        epochs, used = steps / plan.shape.steps_per_epoch, plan.elapsed()
        noun = "evaluation" if plan.evaluations == 1 else "evaluations"
        sentence = (
            f"The time budget of {format_duration(plan.budget)} gave {steps:,} steps ({epochs:.1f} epochs) and "
            f"{plan.evaluations} {noun} in {format_duration(used)}, with the start of training"
        )
        report_progress(sentence)
        numbers = {"budget": plan.budget, "seconds": round(used, 1), "steps": steps, "epochs": round(epochs, 2)}
        write_output(self.path, json.dumps({**numbers, "sentence": f"{sentence}."}, indent=2))


def _round_up(seconds: float) -> str:
    """Return a duration as a time budget, rounded up to 10 seconds or to minutes: "50s", "3m"."""
    return f"{math.ceil(seconds / 10) * 10}s" if seconds <= 120 else f"{math.ceil(seconds / 60)}m"
