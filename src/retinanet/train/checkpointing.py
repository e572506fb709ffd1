"""The callback that writes last.ckpt and best.ckpt."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from retinanet.files import atomic_path, partial_path
from retinanet.train.output_files import write_output, writing

if TYPE_CHECKING:
    from pathlib import Path

    from retinanet.train.detection_module import DetectionModule


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
        last = self.folder / "last.ckpt"
        with writing(last):
            if not trainer.is_global_zero:
                trainer.save_checkpoint(partial_path(last))  # a collective call: rank 0 writes the file
                return
            with atomic_path(last) as partial:
                trainer.save_checkpoint(partial)
                if best_of is not None:
                    self._keep_best(best_of, partial)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """While evaluating, put down that the evaluation is still to come, and undo the change of weights for it.

        Lightning's state within an evaluation would skip the images that are done, and their detections are lost.
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
        write_output(self.folder / "detections.json", json.dumps(pl_module.results).encode())
        write_output(self.folder / "evaluation.json", json.dumps(report, indent=2).encode())
        best = self.folder / "best.ckpt"
        with writing(best), atomic_path(best) as partial:
            partial.unlink(missing_ok=True)
            try:
                os.link(checkpoint, partial)
            except OSError:
                shutil.copyfile(checkpoint, partial)
