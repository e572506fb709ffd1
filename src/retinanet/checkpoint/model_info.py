"""The classes and settings of a trained model, without its network. This module does not import torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Self

from retinanet.checkpoint.tuned_thresholds import TunedThresholds
from retinanet.config import (
    ImageConfig,
    LossConfig,
    MatchConfig,
    NmsConfig,
    PostprocessConfig,
    TileConfig,
    section_from_dict,
    with_options,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """Classes and settings of a trained model. Checkpoints, exported files and detectors use this record.

    Args:
        classes: name of each class id.
        category_ids: category id of each class in the training data. COCO's ids have gaps.
        image_config: resizing, normalisation and padding of images.
        postprocess_config: thresholds and limits that turn network outputs into detections.
        tiling: size and overlap of the tiles that large images are cut into.
        train_config: every option of the training run, as plain values; empty if unknown.
        tuned: score thresholds that `retinanet tune` chose; None: none.
    """

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_config: ImageConfig
    postprocess_config: PostprocessConfig
    tiling: TileConfig = field(default_factory=TileConfig)
    train_config: dict[str, Any] = field(default_factory=dict)
    tuned: TunedThresholds | None = None

    @property
    def match_config(self) -> MatchConfig:
        """Thresholds by which training made anchors positive, negative or ignored."""
        return section_from_dict(MatchConfig, self.train_config)

    @property
    def loss_config(self) -> LossConfig:
        """Options of the training losses."""
        return section_from_dict(LossConfig, self.train_config)

    def with_agnostic_nms(self, value: bool | None) -> Self:
        """Return the record with this `agnostic_nms` in `postprocess_config`; None: unchanged."""
        if value is None:
            return self
        return dataclasses.replace(self, postprocess_config=with_options(self.postprocess_config, agnostic_nms=value))

    def with_nms(self, config: NmsConfig) -> Self:
        """Return the record with these options of NMS in `postprocess_config`; those that are None are unchanged."""
        changed = self.with_agnostic_nms(config.agnostic_nms)
        if config.nms_threshold is None:
            return changed
        postprocess_config = with_options(changed.postprocess_config, nms_threshold=config.nms_threshold)
        return dataclasses.replace(changed, postprocess_config=postprocess_config)

    def info_fields(self) -> dict[str, Any]:
        """Return the fields of `ModelInfo` by name, without the fields of subclasses."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(ModelInfo)}
