"""From files to batches: read and check data sets, augment, load.

`load` reads a data set and refuses a faulty one with the list of all its faults; `DetectionDataset`, a sampler and
`collate` make batches of it. All randomness of a sample comes from its `SampleKey`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from retinanet.data.evaluation_batches import eval_batches
from retinanet.data.loading import load, load_both, load_train, verify_pictures
from retinanet.data.tiling import TiledData, cut
from retinanet.formats import read
from retinanet.formats.records import DataError, DetectionData, Fault, Record

if TYPE_CHECKING:
    from retinanet.data.batch import Batch, TrainBatchSampler, collate
    from retinanet.data.dataset import DetectionDataset, Sample, SampleKey

__all__ = [
    "Batch",
    "DataError",
    "DetectionData",
    "DetectionDataset",
    "Fault",
    "Record",
    "Sample",
    "SampleKey",
    "TiledData",
    "TrainBatchSampler",
    "collate",
    "cut",
    "eval_batches",
    "load",
    "load_both",
    "load_train",
    "read",
    "verify_pictures",
]

_HOMES = {
    **dict.fromkeys(("Batch", "TrainBatchSampler", "collate"), "batch"),
    **dict.fromkeys(("DetectionDataset", "Sample", "SampleKey"), "dataset"),
}
"""What needs torch, and is loaded on use: reading a data set does not."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
