"""Training: `fit` runs it, the rest are its parts."""

from retinanet.train.checkpoint import CheckpointError, SavedModel, read_model
from retinanet.train.module import NonFiniteLossError
from retinanet.train.run import TrainResult, fit

__all__ = ["CheckpointError", "NonFiniteLossError", "SavedModel", "TrainResult", "fit", "read_model"]
