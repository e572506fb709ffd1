"""Training. `fit` trains a model; the other modules are its parts.

Public names are imported on first use, so that importing this package imports neither torch nor Lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinanet.lazy_names import lazy_names

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

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("CheckpointError", "LoadedModel"), "retinanet.checkpoint.loaded_model"),
        "load_checkpoint": "retinanet.checkpoint.loading",
        "OutputError": "retinanet.train.output_files",
        "NonFiniteError": "retinanet.train.flight_recorder",
        **dict.fromkeys(("RecordError", "replay"), "retinanet.train.flight_record"),
        **dict.fromkeys(("TrainResult", "fit"), "retinanet.train.trainer"),
    },
)
