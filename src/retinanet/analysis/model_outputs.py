"""Run a trained network over a dataset: the outputs and the targets of every anchor.

Boxes are xyxy in input pixels. Shape suffixes: N batch, A anchors, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from retinanet.checkpoint.loading import load_checkpoint
from retinanet.config import PART_OPTIONS
from retinanet.data import Batch, DetectionDataset, collate, eval_batches
from retinanet.errors import UserError
from retinanet.matching import make_assigner
from retinanet.plugins import check_allowed_parts
from retinanet.predict.torch_detector import pick_device
from retinanet.progress import ProgressBar, no_progress_bar

if TYPE_CHECKING:
    from pathlib import Path

    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.data import DetectionData
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


@torch.no_grad()
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
    device, assign = trained.device, make_assigner(trained.match_config)
    dataset = DetectionDataset(data=data, image_config=trained.image_config, augment=None)
    batches = eval_batches(data, batch_size) if order is None else order
    with progress("measure", sum(map(len, batches))) as advance:
        for indices in batches:
            batch = collate([dataset[i] for i in indices], trained.image_config).to(device)
            outputs = trained.model(batch.images_N3HW.to(memory_format=torch.channels_last))
            targets = assign(outputs.anchors_A4, batch.targets, anchors_per_level=outputs.anchors_per_level)
            yield DenseBatch(batch=batch, outputs=outputs, targets=targets)
            for _ in indices:
                advance()
