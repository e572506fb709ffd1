"""The network: normalised pictures to a score and four offsets at every anchor. No loss, no decoding, no NMS here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from retinanet.config import ModelConfig, resolve
from retinanet.model.anchors import AnchorGenerator
from retinanet.model.backbone import Backbone
from retinanet.model.fpn import FeaturePyramid
from retinanet.model.heads import Head, initialise_prior
from retinanet.types import HeadOutputs

if TYPE_CHECKING:
    from torch import Tensor


class RetinaNet(nn.Module):
    """RetinaNet (Lin et al., arXiv 1708.02002). images_N3HW -> HeadOutputs, the same in train and eval mode.

    The weights are random: `load_pretrained(model.backbone)` fetches ImageNet's, `retinanet.load` a trained detector.

    Args:
        num_classes: K; class ids are 0 to K - 1, without a background id.
        config: the whole architecture at once,
        options: or the fields of `ModelConfig` that differ from its defaults, such as `backbone="resnet50"`.

    Raises:
        ConfigError: an option that does not exist or a value that it cannot take.
        BackboneError: a backbone that timm does not have, or without maps at the needed strides.
    """

    def __init__(self, *, num_classes: int, config: ModelConfig | None = None, **options: Any) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be 1 or more, found {num_classes}")
        if config is not None and options:
            raise ValueError(f"give either config or options, found both: {', '.join(options)}")
        self.config = config = config or resolve(ModelConfig, options)
        self.num_classes = num_classes
        strides = [2**level for level in config.levels if level <= 5]
        self.backbone = Backbone(name=config.backbone, strides=strides, stride_in_1x1=config.stride_in_1x1)
        self.fpn = FeaturePyramid(
            channels=self.backbone.channels,
            width=config.fpn_width,
            num_coarse=len(config.levels) - len(strides),
            coarse_from=config.p6_from,
        )
        head = {
            "in_channels": config.fpn_width,
            "width": config.head_width,
            "depth": config.head_depth,
            "norm": config.head_norm,
            "anchors_per_position": config.anchors_per_position,
        }
        self.class_head = Head(**head, values=num_classes)  # type: ignore[arg-type]
        self.box_head = Head(**head, values=4)  # type: ignore[arg-type]
        initialise_prior(self.class_head, config.prior)
        self.anchors = AnchorGenerator(config=config)

    def forward(self, images_N3HW: Tensor, above: float | None = None) -> HeadOutputs:
        """Return scores and offsets at every anchor.

        Args:
            images_N3HW: normalised and padded as `images.prepare` does; any height and width.
            above: offsets will be looked at only where a logit is above it. A network made `for_inference` need not
                work out the others and may leave them 0; any other takes no notice.
        """
        levels = self.fpn(self.backbone(images_N3HW))
        logits_NAK = self.class_head(levels)
        if above is None or not self.box_head.skips:
            deltas_NA4 = self.box_head(levels)
        else:
            deltas_NA4 = self.box_head(levels, wanted=_positions_above(logits_NAK, levels, above))
        anchors_A4, per_level = self.anchors(
            [(m.shape[-2], m.shape[-1]) for m in levels],
            like=images_N3HW,
            input_size=(images_N3HW.shape[-2], images_N3HW.shape[-1]),
        )
        return HeadOutputs(
            logits_NAK=logits_NAK,
            deltas_NA4=deltas_NA4,
            anchors_A4=anchors_A4,
            anchors_per_level=per_level,
        )


def _positions_above(logits_NAK: Tensor, levels: list[Tensor], above: float) -> list[Tensor]:
    """Return for each level where any class of any anchor has a logit above, or NaN: bool (N, H, W)."""
    sizes = [(m.shape[-2], m.shape[-1]) for m in levels]
    each = logits_NAK.shape[1] // sum(height * width for height, width in sizes)
    split = torch.split(logits_NAK, [height * width * each for height, width in sizes], dim=1)
    return [
        ~(of_level.reshape(len(of_level), height, width, -1).amax(dim=-1) <= above)
        for of_level, (height, width) in zip(split, sizes, strict=True)
    ]
