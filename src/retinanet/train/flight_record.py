"""Reading of a flight record, and replay of its training step on the CPU."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Final

import torch

from retinanet.config import PART_OPTIONS, ModelConfig, TrainConfig, section_from_dict
from retinanet.data import Batch
from retinanet.errors import UserError
from retinanet.images import Frame
from retinanet.model import RetinaNet
from retinanet.plugins import check_allowed_parts
from retinanet.train.initial_model import freeze_parts
from retinanet.train.nonfinite import describe_cause, find_cause
from retinanet.train.run_folder import FLIGHT_RECORD_FILE
from retinanet.types import Target

FORMAT: Final = 1
KEY: Final = "retinanet flight record"


class RecordError(UserError):
    """A file is missing, damaged, not a flight record, or was written by a later version."""


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of a flight record.

    Raises:
        RecordError: the file is missing, damaged, no flight record, or contains objects other than tensors and plain
            values.
    """
    if not path.is_file():
        raise RecordError(f"no flight record {path}: expected the file {FLIGHT_RECORD_FILE} of a run folder")
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        raise RecordError(f"{path} cannot be read as a flight record: {error}") from error
    if not isinstance(record, dict) or KEY not in record:
        raise RecordError(
            f"{path} is no flight record: `retinanet train` writes {FLIGHT_RECORD_FILE} into the run folder when a "
            "loss, gradient or output is NaN or infinite"
        )
    if not isinstance(record[KEY], int) or record[KEY] > FORMAT:
        raise RecordError(
            f"{path} has flight record format {record[KEY]}, but this version reads formats up to {FORMAT}: "
            "update retinanet"
        )
    return record


def replay(path: Path | str) -> tuple[str, bool]:
    """Run a recorded training step again on the CPU: `replay("runs/first/nonfinite.pt")`.

    Returns:
        The cause in a sentence, and whether its module and kind are those in the record.

    Raises:
        RecordError: the file is missing, damaged or no flight record.
    """
    record = read_record(Path(path))
    config = record["config"]
    check_allowed_parts(config, PART_OPTIONS)
    model = RetinaNet(num_classes=len(record["classes"]), config=section_from_dict(ModelConfig, config))
    model.load_state_dict(record["weights"])
    freeze_parts(model, section_from_dict(TrainConfig, config))
    model.train().to(memory_format=torch.channels_last)
    parts = zip(record["boxes"], record["labels"], record["crowds"], strict=True)
    batch = Batch(
        images_N3HW=record["images_N3HW"],
        targets=tuple(Target(boxes_G4=b, labels_G=k, crowd_G=c) for b, k, c in parts),
        frames=tuple(Frame(*frame) for frame in record["frames"]),
        indices=tuple(record["indices"]),
    )
    cause = find_cause(model, batch, record, device="cpu")
    module_and_kind = (cause.module, cause.kind) if cause else ("", "")
    return describe_cause(cause, record), module_and_kind == (record["module"], record["kind"])
