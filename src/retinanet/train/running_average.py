"""Running average of the weights (exponential moving average, EMA)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import AveragedModel

if TYPE_CHECKING:
    import lightning as L
    from torch import Tensor, nn


class ExponentialAverage(AveragedModel):
    """Average of the weights, on the device of the training, with the number of updates on the CPU.

    The base class reads this number from the device in every step, and a GPU waits for each reading. This class
    updates all weights in one operation.

    Args:
        model: network whose weights are averaged. It is copied.
        device: device of the training.
        decay: largest decay, in (0, 1).
    """

    def __init__(self, model: nn.Module, *, device: torch.device, decay: float) -> None:
        super().__init__(model, device=device)
        self.n_averaged = self.n_averaged.cpu()
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the average: average_n = decay_n average_(n-1) + (1 - decay_n) weights. The first one is a copy."""
        n = int(self.n_averaged)
        average: list[Tensor] = list(self.module.parameters())
        current: list[Tensor] = list(model.parameters())
        if n:
            torch._foreach_lerp_(average, current, 1 - min(self.decay, (1 + n) / (10 + n)))
        else:
            torch._foreach_copy_(average, current)
        # Buffers such as BatchNorm statistics are copied, because they already are averages.
        buffers = list(zip(self.module.buffers(), model.buffers(), strict=True))
        for dtype in {buffer.dtype for buffer, _ in buffers}:
            same = [pair for pair in buffers if pair[0].dtype == dtype]
            torch._foreach_copy_([mine for mine, _ in same], [theirs for _, theirs in same])
        self.n_averaged += 1


class RunningAverage(WeightAveraging):
    """Average the weights exponentially, with a decay that grows from 0.1 to `decay`.

    After n updates, decay_n = min(decay, (1 + n) / (10 + n)). The small first decays reduce the influence of the
    initial weights in a short training run. Buffers such as BatchNorm statistics are copied, because they already are
    averages.

    Args:
        decay: largest decay, in (0, 1).
    """

    def __init__(self, *, decay: float) -> None:
        super().__init__(use_buffers=False)
        self.decay = decay

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Create the average on the device of the training. The network is moved to this device after `setup`."""
        if stage == "fit":
            device = trainer.strategy.root_device
            self._average_model = ExponentialAverage(pl_module, device=device, decay=self.decay)
