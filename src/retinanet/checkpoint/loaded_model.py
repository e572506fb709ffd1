"""What a trained model's file holds beside the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from retinanet.config import (
    ImageConfig,
    PostprocessConfig,
    TileConfig,
    TrainConfig,
    to_dict,
)
from retinanet.errors import UserError
from retinanet.model import RetinaNet
from retinanet.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence


FORMAT: Final = 1


KEY: Final = "retinanet"


class CheckpointError(UserError):
    """A file that is no checkpoint of ours, is damaged, or was written by a later version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
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


def describe_run(config: TrainConfig, classes: Sequence[str], category_ids: Sequence[int]) -> dict[str, Any]:
    """Return what goes into a checkpoint under "retinanet": plain values only."""
    return {
        "format": FORMAT,
        "version": __version__,
        "classes": list(classes),
        "category_ids": list(category_ids),
        "config": to_dict(config),
    }
