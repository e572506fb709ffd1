"""What a trained model's file holds beside the weights, and how it is read: never with a pickle that can run code."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from retinanet.config import (
    ImageConfig,
    ModelConfig,
    PostprocessConfig,
    TileConfig,
    TrainConfig,
    UserError,
    section_from_dict,
    to_dict,
)
from retinanet.model import RetinaNet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FORMAT: Final = 1
KEY: Final = "retinanet"


class CheckpointError(UserError):
    """A file that is no checkpoint of ours, is damaged, or was written by a later version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedModel:
    """A trained network with everything that is needed to use it.

    Args:
        model: in eval mode, on the CPU. With a running average of the weights, it is the average.
        classes: name of each class id.
        category_ids: the id of each class in the training data (COCO's have gaps).
        image_config: how pictures become input.
        postprocess_config: how outputs become detections.
        tiling: how pictures are cut.
        train_config: every option of the run, as plain values.
    """

    model: RetinaNet
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_config: ImageConfig
    postprocess_config: PostprocessConfig
    tiling: TileConfig
    train_config: dict[str, Any]


def describe(config: TrainConfig, classes: Sequence[str], category_ids: Sequence[int]) -> dict[str, Any]:
    """Return what goes into a checkpoint under "retinanet": plain values only."""
    from retinanet import __version__

    return {
        "format": FORMAT,
        "version": __version__,
        "classes": list(classes),
        "category_ids": list(category_ids),
        "config": to_dict(config),
    }


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the checkpoint's dictionary, tensors on the CPU.

    Raises:
        CheckpointError: missing, damaged, not ours, or holding anything but tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not isinstance(checkpoint, dict) or KEY not in checkpoint:
        raise CheckpointError(f"{path} is no checkpoint of retinanet's: it has no entry {KEY!r}")
    found = checkpoint[KEY].get("format")
    if not isinstance(found, int) or found > FORMAT:
        raise CheckpointError(f"{path} has format {found}, this version reads up to {FORMAT}: update retinanet")
    return checkpoint


def read_model(path: Path) -> SavedModel:
    """Return the trained network of a checkpoint. Raises `CheckpointError`."""
    checkpoint = read_checkpoint(path)
    about = checkpoint[KEY]
    config = about["config"]
    model = RetinaNet(num_classes=len(about["classes"]), config=section_from_dict(ModelConfig, config))
    state = {k.removeprefix("model."): v for k, v in checkpoint["state_dict"].items() if k.startswith("model.")}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: the weights do not fit the network it describes: {error}") from error
    return SavedModel(
        model=model.eval(),
        classes=tuple(about["classes"]),
        category_ids=tuple(about["category_ids"]),
        image_config=section_from_dict(ImageConfig, config),
        postprocess_config=section_from_dict(PostprocessConfig, config),
        tiling=section_from_dict(TileConfig, config),
        train_config=config,
    )
