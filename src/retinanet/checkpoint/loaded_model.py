"""What a trained model's file holds beside the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from retinanet.checkpoint.model_info import ModelInfo
from retinanet.config import TrainConfig, to_dict
from retinanet.errors import UserError
from retinanet.model import RetinaNet
from retinanet.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence


FORMAT: Final = 1
KEY: Final = "retinanet"


class CheckpointError(UserError):
    """A file that is no checkpoint of ours, is damaged, or was written by a later version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel(ModelInfo):
    """A trained network with everything that is needed to use it.

    Args:
        model: in eval mode. With a running average of the weights, it is the average.
    """

    model: RetinaNet

    @property
    def device(self) -> torch.device:
        """Device of the network's weights: the CPU, unless the model was moved."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device) -> LoadedModel:
        """Move the network to a device, in the memory format that is fast there, and return this record."""
        self.model.to(device).to(memory_format=torch.channels_last)
        return self


def describe_run(config: TrainConfig, classes: Sequence[str], category_ids: Sequence[int]) -> dict[str, Any]:
    """Return what goes into a checkpoint under "retinanet": plain values only."""
    return {
        "format": FORMAT,
        "version": __version__,
        "classes": list(classes),
        "category_ids": list(category_ids),
        "config": to_dict(config),
    }
