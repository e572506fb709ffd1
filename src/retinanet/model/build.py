"""The one builder of networks: from the options to the parts.

A backbone of your own is a function or class in any importable module, named by `--backbone package.module:factory`. It
is called with the keyword `strides`, the strides of the feature maps that it must return, and with every option of
`ModelConfig` that it has a parameter for, for example `levels`; every other parameter needs a default. It returns a
module as `backbone.check_body` requires. The module may have a method `load_pretrained()` that loads ImageNet weights,
and attributes `mean` and `std`, the normalisation of these weights (RGB in [0, 1]).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from retinanet.model.anchors import AnchorGenerator
from retinanet.model.backbone import Backbone
from retinanet.model.fpn import FeaturePyramid
from retinanet.model.heads import Head, initialise_prior
from retinanet.plugins import import_name, is_dotted, make_part

if TYPE_CHECKING:
    from retinanet.config import ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The parts of a network: the arguments of `RetinaNet`."""

    backbone: Backbone
    pyramid: FeaturePyramid
    class_head: Head
    box_head: Head
    anchors: AnchorGenerator


def build_parts(*, num_classes: int, config: ModelConfig) -> Parts:
    """Return the parts of the network that a config describes, with random weights.

    The order in which weights are drawn is backbone, pyramid, class head, box head.

    Raises:
        BackboneError: a backbone that does not exist, or without maps at the needed strides.
        ConfigError: a backbone from outside that cannot be imported.
    """
    backbone = build_backbone(config)
    pyramid = FeaturePyramid(
        channels=backbone.channels,
        width=config.fpn_width,
        num_coarse=len(config.levels) - len(backbone.channels),
        coarse_from=config.p6_from,
    )
    class_head, box_head = _head(config, values=num_classes), _head(config, values=4)
    initialise_prior(class_head, config.prior)
    return Parts(
        backbone=backbone,
        pyramid=pyramid,
        class_head=class_head,
        box_head=box_head,
        anchors=AnchorGenerator(config=config),
    )


def build_backbone(config: ModelConfig) -> Backbone:
    """Return the backbone that a config names: timm's, or one from outside."""
    name, strides = config.backbone, tuple(2**level for level in config.levels if level <= 5)
    body = None
    if is_dotted(name):
        body = make_part("backbone", import_name("backbone", name), config, strides=strides)
    return Backbone(name=name, strides=strides, stride_in_1x1=config.stride_in_1x1, body=body)


def _head(config: ModelConfig, *, values: int) -> Head:
    return Head(
        in_channels=config.fpn_width,
        width=config.head_width,
        depth=config.head_depth,
        norm=config.head_norm,
        anchors_per_position=config.anchors_per_position,
        values=values,
    )
