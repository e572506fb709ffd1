"""Callback: `--callbacks retinanet_extras.callbacks:LossLog`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback


class LossLog(Callback):
    """Write the loss of each epoch to losses.txt in the run folder. A resumed training run continues the count."""

    def __init__(self) -> None:
        self.epochs = 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs += 1
        with (Path(trainer.default_root_dir) / "losses.txt").open("a") as file:
            file.write(f"{self.epochs} {float(trainer.callback_metrics['loss']):.6g}\n")

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = state_dict["epochs"]
