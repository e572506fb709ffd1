"""The record of a loaded model, and the description that a checkpoint stores beside the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch

from retinanet.checkpoint.model_info import ModelInfo
from retinanet.config import TrainConfig, to_dict
from retinanet.errors import UserError
from retinanet.losses import DetectionLoss
from retinanet.model import RetinaNet
from retinanet.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


FORMAT: Final = 1
"""Version of the checkpoint format."""
KEY: Final = "retinanet"
"""Key of the description in a checkpoint."""
LOSS_STATE: Final = "loss_state"
"""Key of the state of the training loss in a checkpoint."""


class CheckpointError(UserError):
    """A file that is not a retinanet checkpoint, is damaged, or was written by a later version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel(ModelInfo):
    """A trained network with its classes and settings.

    Args:
        model: network in eval mode. If training averaged the weights (EMA), these are the averaged weights.
        loss_state: tensors of the training loss that training changed, by name; empty for most losses.
    """

    model: RetinaNet
    loss_state: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Device of the network's weights."""
        return next(self.model.parameters()).device

    def make_loss(self) -> DetectionLoss:
        """Build the loss that the network was trained with, as it was in the last training step."""
        loss = DetectionLoss(config=self.loss_config)
        loss.load_state_dict(self.loss_state)
        return loss

    def to(self, device: torch.device) -> LoadedModel:
        """Move the network to a device, in the channels-last memory format, and return this record."""
        self.model.to(device).to(memory_format=torch.channels_last)
        return self


def describe_run(config: TrainConfig, classes: Sequence[str], category_ids: Sequence[int]) -> dict[str, Any]:
    """Return the description that a checkpoint stores under the key "retinanet", as plain values."""
    return {
        "format": FORMAT,
        "version": __version__,
        "classes": list(classes),
        "category_ids": list(category_ids),
        "config": to_dict(config),
    }
