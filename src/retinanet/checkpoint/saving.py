"""Write a loaded model as a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from retinanet.checkpoint.loaded_model import FORMAT, KEY, LOSS_STATE
from retinanet.files import atomic_path
from retinanet.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from retinanet.checkpoint.loaded_model import LoadedModel


def save_model(model: LoadedModel, path: Path) -> None:
    """Write a model as a checkpoint that `load_checkpoint` reads. An existing file is replaced.

    The settings in the file are those of `train_config`. The state of the optimiser is not part of the file.
    """
    entry = {
        "format": FORMAT,
        "version": __version__,
        "classes": list(model.classes),
        "category_ids": list(model.category_ids),
        "config": dict(model.train_config),
    }
    if model.tuned is not None:
        entry["tuned"] = model.tuned.to_dict()
    checkpoint = {
        "state_dict": {f"model.{name}": value.cpu() for name, value in model.model.state_dict().items()},
        KEY: entry,
        LOSS_STATE: dict(model.loss_state),
    }
    with atomic_path(path) as partial:
        torch.save(checkpoint, partial)
