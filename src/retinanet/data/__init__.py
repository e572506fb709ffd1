"""Datasets, from files to batches: read, check, augment, tile, split.

`load` reads and checks a dataset, and raises `DataError` with the list of all faults if it finds any.
`DetectionDataset`, `TrainBatchSampler` and `collate` turn the loaded data into batches.
A training sample depends only on its `SampleKey`, not on the worker process that makes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinanet.data.evaluation_batches import eval_batches
from retinanet.data.loading import load, load_train, load_train_and_val, verify_images
from retinanet.data.sampling import EpochSampling
from retinanet.data.tiling import TiledData, cut_into_tiles
from retinanet.formats import read
from retinanet.formats.records import DataError, DetectionData, Fault, Record
from retinanet.lazy_names import lazy_names

if TYPE_CHECKING:
    from retinanet.data.albumentations_adapter import AlbumentationsTransform
    from retinanet.data.batch import Batch, PixelBatch, TrainBatchSampler, collate
    from retinanet.data.dataset import DetectionDataset, Sample, SampleKey
    from retinanet.data.user_transform import TrainingSample

__all__ = [
    "AlbumentationsTransform",
    "Batch",
    "DataError",
    "DetectionData",
    "DetectionDataset",
    "EpochSampling",
    "Fault",
    "PixelBatch",
    "Record",
    "Sample",
    "SampleKey",
    "TiledData",
    "TrainBatchSampler",
    "TrainingSample",
    "collate",
    "cut_into_tiles",
    "eval_batches",
    "load",
    "load_train",
    "load_train_and_val",
    "read",
    "verify_images",
]

# Reading a dataset must not import torch. The modules of these names do.
__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("Batch", "PixelBatch", "TrainBatchSampler", "collate"), "retinanet.data.batch"),
        **dict.fromkeys(("DetectionDataset", "Sample", "SampleKey"), "retinanet.data.dataset"),
        "AlbumentationsTransform": "retinanet.data.albumentations_adapter",
        "TrainingSample": "retinanet.data.user_transform",
    },
)
