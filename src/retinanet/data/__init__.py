"""From files to batches: read and check data sets, augment, load.

`load` reads a data set and refuses a faulty one with the list of all its faults; `DetectionDataset`, a sampler and
`collate` make batches of it. All randomness of a sample comes from its `SampleKey`.
"""

from retinanet.data.batch import Batch, TrainBatchSampler, collate, eval_batches
from retinanet.data.check import load, load_both, load_train, verify_pictures
from retinanet.data.dataset import DetectionDataset, Sample, SampleKey
from retinanet.data.formats import read
from retinanet.data.records import DataError, DetectionData, Fault, Record
from retinanet.data.tiling import TiledData, cut

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
