"""Training: `fit` runs it, the rest are its parts. Loaded on use: reading a checkpoint needs no trainer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinanet.train.flight_record import RecordError, replay
    from retinanet.train.flight_recorder import NonFiniteError
    from retinanet.train.output_files import OutputError
    from retinanet.train.trainer import TrainResult, fit

__all__ = [
    "NonFiniteError",
    "OutputError",
    "RecordError",
    "TrainResult",
    "fit",
    "replay",
]

_HOMES = {
    "OutputError": "output_files",
    "NonFiniteError": "flight_recorder",
    **dict.fromkeys(("RecordError", "replay"), "flight_record"),
    **dict.fromkeys(("TrainResult", "fit"), "trainer"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
