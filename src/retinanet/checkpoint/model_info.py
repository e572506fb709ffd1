"""Classes and settings of a trained model, without its network. Needs no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from retinanet.config import (
    ImageConfig,
    LossConfig,
    MatchConfig,
    PostprocessConfig,
    TileConfig,
    section_from_dict,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """Classes and settings of a trained model: the one record for checkpoints, exported files and detectors.

    Args:
        classes: name of each class id.
        category_ids: the id of each class in the training data (COCO's have gaps).
        image_config: how images become input.
        postprocess_config: how outputs become detections.
        tiling: how images are cut into tiles.
        train_config: every option of the training run, as plain values; empty if unknown.
    """

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_config: ImageConfig
    postprocess_config: PostprocessConfig
    tiling: TileConfig = field(default_factory=TileConfig)
    train_config: dict[str, Any] = field(default_factory=dict)

    @property
    def match_config(self) -> MatchConfig:
        """Which anchors were positive, negative and ignored in training."""
        return section_from_dict(MatchConfig, self.train_config)

    @property
    def loss_config(self) -> LossConfig:
        """The losses of the training."""
        return section_from_dict(LossConfig, self.train_config)

    def info_fields(self) -> dict[str, Any]:
        """Return the fields of `ModelInfo` by name, without those of a subclass: to build another such record."""
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(ModelInfo)}
