"""Whole training steps on the device double, with Lightning: the CPU's results, and no wait for the device."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy

from retinanet.progress import TrainingStatus
from retinanet.train import fit, lightning_trainer
from tests.device_double import DEVICE, Counts, double, to_cpu, to_double
from tests.train.runs import Options


class DoubleStrategy(SingleDeviceStrategy):
    """Train on the device double."""

    def __init__(self) -> None:
        super().__init__(device=DEVICE, accelerator=CPUAccelerator())

    def setup_environment(self) -> None:
        """Do nothing: the accelerator refuses other devices than the CPU."""

    def model_to_device(self) -> None:
        """Move the weights to the double."""
        to_double(self.model)


class StepCounts(Callback):
    """Store the counts and the loss of each training step."""

    def __init__(self, counts: Counts | None = None) -> None:
        self.counts = counts or Counts()
        self.syncs: list[dict[str, int]] = []
        self.transfers: list[int] = []
        self.losses: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """Start to count, after the batch has been copied."""
        self.transfers.append(self.counts.transfers)
        self.counts.clear()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        """Store the counts of the step."""
        self.syncs.append(dict(self.counts.syncs_by_op))
        self.losses.append(float(to_cpu(outputs["loss"])))
        self.counts.clear()


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the fused AdamW, as on a GPU. torch refuses it on the device of the double."""
    module = importlib.import_module("torch.optim.adam")
    monkeypatch.setattr(module, "_device_dtype_check_for_fused", lambda *_, **__: None)
    original = torch.optim.AdamW

    def make(settings: Any, *, lr: float, fused: bool | None) -> torch.optim.Optimizer:
        optimizer = original(settings, lr=lr)
        for group in optimizer.param_groups:
            group["fused"] = True
        return optimizer

    monkeypatch.setattr(torch.optim, "AdamW", make)


@pytest.mark.slow
@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("loss", ["focal", "eql_v2", "ghm_c"])
def test_a_step_does_not_wait_for_the_device(
    tiny: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """The losses equal those on the CPU. No step without a log entry waits, Lightning's own work included.

    The first step of an epoch waits: Lightning moves the sums of 4 logged values to the device, 12 numbers. In the
    first step of the run, the measured loss is also compared with the expected loss.
    """
    options = {**tiny, "epochs": 1, "log_every": 1000, "measure_imbalance": 0, "clip_gradients": 1.0, "loss": loss}
    on_cpu = StepCounts()
    shown: list[TrainingStatus] = []

    @contextmanager
    def live() -> Iterator[Callable[[TrainingStatus], None]]:
        yield shown.append

    fit(**options, callbacks=[on_cpu], logger=False)
    monkeypatch.setattr(
        lightning_trainer, "_device_options", lambda config: {"strategy": DoubleStrategy(), "devices": 1}
    )
    with double() as counts:
        steps = StepCounts(counts)
        fit(**{**options, "output": tmp_path / "double"}, callbacks=[steps], logger=False, live=live)
    assert steps.losses == pytest.approx(on_cpu.losses, rel=1e-3)
    assert len(steps.syncs) == 3
    assert [status.loss for status in shown[:3]] == pytest.approx([on_cpu.losses[0]] * 3, rel=1e-3)
    assert steps.syncs[1:] == [{}] * 2
    assert steps.transfers[1:] == [2] * 2  # the pixels, and one packed tensor
