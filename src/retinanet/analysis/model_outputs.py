"""A trained network's dense outputs over a dataset, with what every anchor should have said.

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
from retinanet.plugins import refuse_foreign_parts
from retinanet.predict.torch_detector import pick_device
from retinanet.progress import ProgressBar, no_progress_bar

if TYPE_CHECKING:
    from pathlib import Path

    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.data import DetectionData
    from retinanet.types import AnchorTargets, HeadOutputs


def load_for_analysis(path: Path, *, device: str = "auto") -> LoadedModel:
    """Return the network of a checkpoint on a device, with its settings.

    Raises:
        CheckpointError: see `load_checkpoint`.
        UserError: the model was trained on tiles, and the analyses evaluate whole images.
    """
    loaded = load_checkpoint(path)
    refuse_foreign_parts(loaded.train_config, PART_OPTIONS)
    if loaded.tiling.tile:
        raise UserError(
            f"{path} was trained on tiles of {loaded.tiling.tile} pixels, and this analysis looks at whole images: "
            "cut the data beforehand"
        )
    return loaded.to(pick_device(device))


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseBatch:
    """One batch: `batch.indices` says which images of the data, `batch.frames` their sizes."""

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
    """Yield the outputs and anchor targets of every image, without augmentation, one batch in memory at a time.

    Args:
        trained: its class ids must be the data's: load the data with `classes=trained.classes`.
        data: images and objects.
        batch_size: images at once.
        order: the batches, by image number; by default all images, those of like shape together.
        progress: opens a progress bar.

    Raises:
        ValueError: the data's classes are not the model's.
    """
    if data.classes != trained.classes:
        raise ValueError(f"expected the model's classes {trained.classes}, found {data.classes} in {data.source}")
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
