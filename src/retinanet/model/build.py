"""Build the parts of a network from its options.

A custom backbone is a function or class in any importable module, named by `--backbone package.module:factory`. It is
called with the keyword `strides`, the strides of the feature maps that the backbone must return. It is also called with
each option of `ModelConfig` that it declares as a parameter, for example `levels`. Every other parameter needs a
default. The factory returns a module that meets the requirements of `backbone.check_body`. The module may have a method
`load_pretrained()` that loads ImageNet weights, and attributes `mean` and `std`, the normalisation of the images that
these weights were trained on (RGB in [0, 1]).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from retinanet.errors import ConfigError
from retinanet.model.anchors import AnchorGenerator
from retinanet.model.backbone import Backbone, BackboneError
from retinanet.model.fpn import FeaturePyramid
from retinanet.model.heads import Head, initialise_prior
from retinanet.plugins import import_name, is_dotted, make_part

if TYPE_CHECKING:
    from retinanet.config import ModelConfig

COARSEST_MAP: Final = 5
"""Level of the backbone's coarsest map, stride 32. Every pyramid uses it: its wide view of the image reaches the finer
levels from above."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The parts of a network: the arguments of `RetinaNet`."""

    backbone: Backbone
    pyramid: FeaturePyramid
    class_head: Head
    box_head: Head
    anchors: AnchorGenerator


def build_parts(*, num_classes: int, config: ModelConfig) -> Parts:
    """Return the parts of the network that a config describes, with random weights in float32.

    Another default dtype of torch, which another library may have set, has no effect on the type of the weights: a
    network in bfloat16 would round the weights of a checkpoint. The weights are drawn in the order backbone, pyramid,
    class head, box head.

    Raises:
        BackboneError: a backbone that does not exist, or that has no feature maps at the required strides.
        ConfigError: a custom backbone that cannot be imported.
    """
    backbone = build_backbone(config)
    pyramid = FeaturePyramid(
        channels=backbone.channels,
        width=config.fpn_width,
        num_coarse=sum(level > COARSEST_MAP for level in config.levels),
        coarse_from=config.p6_from,
        first_map=config.levels[0] - _first_map(config),
        num_outputs=sum(level <= COARSEST_MAP for level in config.levels),
    )
    class_head, box_head = _head(config, values=num_classes), _head(config, values=4)
    initialise_prior(class_head, config.prior)
    return Parts(
        backbone=backbone.float(),
        pyramid=pyramid.float(),
        class_head=class_head.float(),
        box_head=box_head.float(),
        anchors=AnchorGenerator(config=config),
    )


def build_backbone(config: ModelConfig) -> Backbone:
    """Return the backbone that a config names, timm's or custom, with random weights."""
    name, strides = config.backbone, tuple(2**level for level in range(_first_map(config), COARSEST_MAP + 1))
    body = None
    if is_dotted(name):
        body = make_part("backbone", import_name("backbone", name), config, strides=strides)
    return Backbone(name=name, strides=strides, stride_in_1x1=config.stride_in_1x1, body=body)


def has_level_2(config: ModelConfig) -> bool:
    """Return whether the backbone has a feature map at stride 4, which feature level 2 needs. Draw no random numbers
    from torch's generator.
    """
    finer = dataclasses.replace(config, levels=(2,), anchor_sizes=config.anchor_sizes[:1])
    try:
        with torch.random.fork_rng(devices=[]):
            build_backbone(finer)
    except (BackboneError, ConfigError):
        return False
    return True


def _first_map(config: ModelConfig) -> int:
    """Return the level of the backbone's finest map: 2 if the feature levels need it, otherwise 3."""
    return min(config.levels[0], 3)


def _head(config: ModelConfig, *, values: int) -> Head:
    return Head(
        in_channels=config.fpn_width,
        width=config.head_width,
        depth=config.head_depth,
        norm=config.head_norm,
        anchors_per_position=config.anchors_per_position,
        values=values,
    )
