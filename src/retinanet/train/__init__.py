"""Training: `fit` runs it, the rest are its parts. Loaded on use: reading a checkpoint needs no trainer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinanet.train.callbacks import OutputError
    from retinanet.train.checkpoint import CheckpointError, SavedModel, read_model
    from retinanet.train.recorder import NonFiniteError, RecordError, replay
    from retinanet.train.run import TrainResult, fit

__all__ = [
    "CheckpointError",
    "NonFiniteError",
    "OutputError",
    "RecordError",
    "SavedModel",
    "TrainResult",
    "fit",
    "read_model",
    "replay",
]

_HOMES = {
    **dict.fromkeys(("CheckpointError", "SavedModel", "read_model"), "checkpoint"),
    "OutputError": "callbacks",
    **dict.fromkeys(("NonFiniteError", "RecordError", "replay"), "recorder"),
    **dict.fromkeys(("TrainResult", "fit"), "run"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
