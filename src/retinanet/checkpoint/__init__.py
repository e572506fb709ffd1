"""Checkpoints: their format, loading, and the import of weights from torchvision and Detectron2.

The public names are imported on first use, because importing `ModelInfo` must not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinanet.checkpoint.import_weights import WeightsError, convert_weights, from_detectron2, from_torchvision
    from retinanet.checkpoint.loaded_model import CheckpointError, LoadedModel
    from retinanet.checkpoint.loading import load_checkpoint
    from retinanet.checkpoint.model_info import ModelInfo

__all__ = [
    "CheckpointError",
    "LoadedModel",
    "ModelInfo",
    "WeightsError",
    "convert_weights",
    "from_detectron2",
    "from_torchvision",
    "load_checkpoint",
]

_MODULES = {
    **dict.fromkeys(
        ("WeightsError", "convert_weights", "from_detectron2", "from_torchvision"),
        "retinanet.checkpoint.import_weights",
    ),
    **dict.fromkeys(("CheckpointError", "LoadedModel"), "retinanet.checkpoint.loaded_model"),
    "load_checkpoint": "retinanet.checkpoint.loading",
    "ModelInfo": "retinanet.checkpoint.model_info",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'retinanet.checkpoint' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
