"""Run a trained network over a dataset: the outputs and the targets of every anchor.

Boxes are xyxy in input pixels. Shape suffixes: N batch, A anchors, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from retinanet.checkpoint.loading import load_checkpoint
from retinanet.config import PART_OPTIONS
from retinanet.data import Batch, DetectionDataset, collate, eval_batches
from retinanet.data.transforms import is_thick
from retinanet.errors import UserError
from retinanet.matching import make_assigner
from retinanet.plugins import check_allowed_parts
from retinanet.predict.torch_detector import pick_device
from retinanet.progress import ProgressBar, no_progress_bar
from retinanet.torch_state import building_state

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.data import DetectionData
    from retinanet.formats.records import Record
    from retinanet.images import Frame
    from retinanet.matching import Assigner
    from retinanet.types import AnchorTargets, HeadOutputs


def load_for_analysis(path: Path, *, device: str = "auto") -> LoadedModel:
    """Return the network and settings of a checkpoint, on a device.

    Raises:
        CheckpointError: see `load_checkpoint`.
        UserError: the model was trained on tiles; this analysis evaluates whole images.
    """
    loaded = load_checkpoint(path)
    check_allowed_parts(loaded.train_config, PART_OPTIONS)
    if loaded.tiling.tile:
        raise UserError(
            f"{path} was trained on tiles of {loaded.tiling.tile} pixels, but this analysis evaluates whole images: "
            "cut the images of the data into tiles first"
        )
    return loaded.to(pick_device(device))


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseBatch:
    """Outputs and targets of one batch; `batch.indices` holds the image indices, `batch.frames` the image sizes."""

    batch: Batch
    outputs: HeadOutputs
    targets: AnchorTargets


def input_objects(record: Record, frame: Frame) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return the boxes of all objects of an image in input pixels, (G, 4), and the indices of the targets' objects.

    The targets leave out objects that become thinner than a pixel (`transforms.resize`).
    """
    scale_4 = np.array([frame.resized_width / frame.width, frame.resized_height / frame.height] * 2)
    boxes_G4 = record.boxes_G4 * scale_4
    return boxes_G4, np.flatnonzero(is_thick(torch.from_numpy(boxes_G4)).numpy())


def split_for(model: nn.Module, batch: Batch, *, divisor: int) -> list[Batch]:
    """Return the batches that one step of a network processes: one for each image shape, see `Batch.split_by_shape`.

    A network with a BatchNorm layer that is trained processes the whole batch at once: the layer needs the statistics
    of all images, and synchronised layers need an equal number of calls on all ranks.
    """
    batchnorms = (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    return [batch] if any(m.training for m in batchnorms) else batch.split_by_shape(divisor=divisor)


def run_by_shape(model: nn.Module, batch: Batch, assigner: Assigner, *, divisor: int) -> list[DenseBatch]:
    """Return the outputs and anchor targets of a batch: one part for each batch of `split_for`.

    Args:
        model: network.
        batch: batch on the device of the network.
        assigner: rule that makes anchors positive, negative or ignored.
        divisor: `size_divisor` of the images.
    """
    parts = []
    for part in split_for(model, batch, divisor=divisor):
        outputs = model(part.images_N3HW.to(memory_format=torch.channels_last))
        targets = assigner.assign(outputs, part.targets)
        parts.append(DenseBatch(batch=part, outputs=outputs, targets=targets))
    return parts


def dense_outputs(
    trained: LoadedModel,
    data: DetectionData,
    *,
    batch_size: int = 8,
    order: Sequence[Sequence[int]] | None = None,
    progress: ProgressBar = no_progress_bar,
) -> Iterator[DenseBatch]:
    """Yield the outputs and anchor targets of every image, without augmentation. Memory holds one batch at a time.

    Args:
        trained: network with its settings, see `load_for_analysis`.
        data: images and objects, loaded with `classes=trained.classes`.
        batch_size: number of images per batch.
        order: image indices of each batch; by default all images, with images of similar shape in one batch.
        progress: function that opens a progress bar.

    Raises:
        ValueError: the classes of `data` differ from those of the model.
    """
    if data.classes != trained.classes:
        raise ValueError(
            f"expected the model's classes {trained.classes}, found {data.classes} in {data.source}: load the data "
            "with classes=trained.classes"
        )
    device, assigner = trained.device, make_assigner(trained.match_config)
    dataset = DetectionDataset(data=data, image_config=trained.image_config, augment=None)
    batches = eval_batches(data, batch_size) if order is None else order
    with progress("measure", sum(map(len, batches))) as advance:
        for indices in batches:
            batch = collate([dataset[i] for i in indices], trained.image_config).to(device)
            with building_state(), torch.no_grad():
                parts = run_by_shape(trained.model, batch, assigner, divisor=trained.image_config.size_divisor)
            yield from parts
            for _ in indices:
                advance()
