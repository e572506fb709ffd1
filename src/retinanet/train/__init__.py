"""Training: `fit` runs it, the rest are its parts. Names are imported on use: this package imports nothing heavy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinanet.checkpoint.loaded_model import CheckpointError, LoadedModel
    from retinanet.checkpoint.loading import load_checkpoint
    from retinanet.train.flight_record import RecordError, replay
    from retinanet.train.flight_recorder import NonFiniteError
    from retinanet.train.output_files import OutputError
    from retinanet.train.trainer import TrainResult, fit

__all__ = [
    "CheckpointError",
    "LoadedModel",
    "NonFiniteError",
    "OutputError",
    "RecordError",
    "TrainResult",
    "fit",
    "load_checkpoint",
    "replay",
]

_MODULES = {
    **dict.fromkeys(("CheckpointError", "LoadedModel"), "retinanet.checkpoint.loaded_model"),
    "load_checkpoint": "retinanet.checkpoint.loading",
    "OutputError": "retinanet.train.output_files",
    "NonFiniteError": "retinanet.train.flight_recorder",
    **dict.fromkeys(("RecordError", "replay"), "retinanet.train.flight_record"),
    **dict.fromkeys(("TrainResult", "fit"), "retinanet.train.trainer"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
