"""Callback that writes last.ckpt and best.ckpt."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from retinanet.files import atomic_path, partial_path
from retinanet.train.metrics_file import last_epoch
from retinanet.train.output_files import translate_os_errors, write_output

if TYPE_CHECKING:
    from pathlib import Path

    from retinanet.train.detection_module import DetectionModule


class Checkpoints(Callback):
    """Write last.ckpt after each epoch, and best.ckpt, evaluation.json and detections.json after each higher AP.

    Each file is complete at any moment, because it is written under a temporary name and then renamed. The files of
    the best epoch are written before last.ckpt: a training run that is killed in between repeats the epoch when it is
    resumed, and writes the files of the best epoch again.

    Args:
        folder: run folder.
        ended: whether the resumed training run has no step left to train.
    """

    def __init__(self, *, folder: Path, ended: bool = False) -> None:
        self.folder = folder
        self.ended = ended
        self.best_ap = -1.0
        self.best_epoch = -1
        self.unevaluated = False
        self._stopped = False
        self._evaluated = False
        self._evaluating = False

    def state_dict(self) -> dict[str, Any]:
        """Return the best AP, its epoch, and the flags that a resumed training run needs."""
        return {
            "best_ap": self.best_ap,
            "best_epoch": self.best_epoch,
            "unevaluated": self.unevaluated,
            "stopped": self._stopped,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.best_ap, self.best_epoch = state_dict["best_ap"], state_dict["best_epoch"]
        self.unevaluated, self._stopped = state_dict["unevaluated"], state_dict["stopped"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop at once if the resumed training run has no step left (`patience`, `max_steps`, a callback)."""
        if self.ended:
            trainer.should_stop = True

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record that the running average has replaced the weights."""
        self._evaluating = trainer.state.fn == "fit"

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record that the weights are back: `RunningAverage`, an earlier callback, has restored them."""
        self._evaluating = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record that this epoch was evaluated."""
        self._evaluated = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: DetectionModule) -> None:  # type: ignore[override]
        """Write the checkpoints. The epoch and its evaluation are over, so a resumed run starts with the next epoch."""
        best = self._evaluated and self._improves(trainer)
        self.unevaluated = not self._evaluated
        self._evaluated = False
        self._stopped = bool(trainer.should_stop)
        self.save(trainer, best_of=pl_module if best else None)

    def save(self, trainer: L.Trainer, *, best_of: DetectionModule | None = None) -> None:
        """Write last.ckpt. All ranks must call this together, between two steps or within an evaluation.

        Args:
            trainer: Lightning's trainer.
            best_of: module whose last evaluation has the highest AP so far, to write best.ckpt too; None otherwise.

        Raises:
            OutputError: the disk is full or read-only. The previous last.ckpt is unchanged.
        """
        last = self.folder / "last.ckpt"
        with translate_os_errors(last):
            if not trainer.is_global_zero:
                trainer.save_checkpoint(partial_path(last))  # a collective call: rank 0 writes the file
                return
            with atomic_path(last) as partial:
                trainer.save_checkpoint(partial)
                if best_of is not None:
                    self._write_best(best_of, partial)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Within an evaluation, store that the evaluation has not started, and swap the weights and their average back.

        Resumed from Lightning's own state, the evaluation would skip the images already processed, whose detections
        are not saved.
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

    def save_if_best(self, trainer: L.Trainer, pl_module: DetectionModule) -> None:
        """Make last.ckpt the best checkpoint if its AP, measured after training (`evaluate_every`), is the highest."""
        if self._improves(trainer) and trainer.is_global_zero:
            self._write_best(pl_module, self.folder / "last.ckpt")

    def _improves(self, trainer: L.Trainer) -> bool:
        """Return whether the last evaluation has the highest AP so far, and store a new highest AP."""
        ap = float(trainer.callback_metrics["AP"])
        if ap <= self.best_ap:
            return False
        self.best_ap, self.best_epoch = ap, last_epoch(trainer)
        return True

    def _write_best(self, pl_module: DetectionModule, checkpoint: Path) -> None:
        """Write the files of the best epoch. best.ckpt is a hard link to the checkpoint, or a copy if links fail."""
        numbers = pl_module.metrics.to_json() if pl_module.metrics else {}
        report = {"epoch": self.best_epoch, **numbers}
        write_output(self.folder / "detections.json", json.dumps(pl_module.results).encode())
        write_output(self.folder / "evaluation.json", json.dumps(report, indent=2).encode())
        best = self.folder / "best.ckpt"
        with translate_os_errors(best), atomic_path(best) as partial:
            partial.unlink(missing_ok=True)
            try:
                os.link(checkpoint, partial)
            except OSError:
                shutil.copyfile(checkpoint, partial)
