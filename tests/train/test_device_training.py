"""A training run through the device double: whole steps, with Lightning, without a wait for the device."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy

from retinanet.train import fit, lightning_trainer
from tests.device_double import DEVICE, Counts, double, to_double
from tests.train.runs import Options


class DoubleStrategy(SingleDeviceStrategy):
    """Train on the device double."""

    def __init__(self) -> None:
        super().__init__(device=DEVICE, accelerator=L.pytorch.accelerators.CPUAccelerator())

    def setup_environment(self) -> None:
        """Do nothing: the accelerator expects a CPU."""

    def model_to_device(self) -> None:
        """Replace the weights by doubles."""
        to_double(self.model)


class CountSteps(Callback):
    """Store the counts of every training step."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.steps: list[dict[str, Any]] = []

    def on_train_batch_start(self, *_: Any) -> None:
        if self.steps or True:
            self.steps.append({**self.counts.syncs_by_op, "kernels": self.counts.kernels})
        self.counts.clear()


def test_steps(tiny: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        lightning_trainer, "_device_options", lambda config: {"strategy": DoubleStrategy(), "devices": 1}
    )
    with double() as counts:
        steps = CountSteps(counts)
        fit(**{**tiny, "epochs": 2, "log_every": 1000}, callbacks=[steps], logger=False)
    print(steps.steps)
    raise AssertionError
