"""The network: normalised images to a score and four offsets at every anchor. No loss, no decoding, no NMS here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from retinanet.config import ModelConfig, resolve
from retinanet.model.build import build_parts
from retinanet.types import HeadOutputs

if TYPE_CHECKING:
    from torch import Tensor

    from retinanet.model.anchors import AnchorGenerator
    from retinanet.model.fpn import FeaturePyramid
    from retinanet.model.heads import Head


class RetinaNet(nn.Module):
    """RetinaNet (Lin et al., arXiv 1708.02002). images_N3HW -> HeadOutputs, the same in train and eval mode.

    `RetinaNet(num_classes=3, backbone="resnet50")` builds the parts that the options describe. With `pyramid`,
    `class_head`, `box_head`, `anchors` and a module as `backbone`, the network consists of these parts.

    The weights are random: `load_pretrained(model.backbone)` fetches ImageNet's, `retinanet.load` a trained detector.

    Args:
        num_classes: K; class ids are 0 to K - 1, without a background id. With parts, taken from `class_head`.
        config: the whole architecture at once. With parts, the options that describe them: needed to save and predict.
        backbone: timm's name or `package.module:factory`; or a module that maps images to feature maps, finest first.
        pyramid: feature maps to levels, all of one width.
        class_head: levels to (N, A, K) logits; its attribute `values` is K.
        box_head: levels to (N, A, 4) offsets.
        anchors: sizes of the levels to anchors.
        options: the fields of `ModelConfig` that differ from their defaults, such as `head_depth=2`.

    Raises:
        ConfigError: an option that does not exist or a value that it cannot take.
        BackboneError: a backbone that timm does not have, or without maps at the needed strides.
        ValueError: fewer than one class, some parts but not all, or parts and options.
    """

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        config: ModelConfig | None = None,
        backbone: str | nn.Module | None = None,
        pyramid: FeaturePyramid | nn.Module | None = None,
        class_head: Head | nn.Module | None = None,
        box_head: Head | nn.Module | None = None,
        anchors: AnchorGenerator | nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if isinstance(backbone, str):
            options, backbone = {**options, "backbone": backbone}, None
        given: dict[str, Any] = {
            "backbone": backbone,
            "pyramid": pyramid,
            "class_head": class_head,
            "box_head": box_head,
            "anchors": anchors,
        }
        from_parts = any(part is not None for part in given.values())
        if config is not None and options:
            raise ValueError(f"give either config or options, found both: {', '.join(options)}")
        if from_parts:
            _check_parts(given, options)
            num_classes = given["class_head"].values if num_classes is None else num_classes
        if num_classes is None or num_classes < 1:
            raise ValueError(f"num_classes must be 1 or more, found {num_classes}")
        if not from_parts:
            config = config or resolve(ModelConfig, options)
            parts = build_parts(num_classes=num_classes, config=config)
            given = {name: getattr(parts, name) for name in given}
        self._config = config
        self.num_classes = num_classes
        self.backbone = given["backbone"]
        self.fpn = given["pyramid"]  # checkpoints have this name
        self.class_head, self.box_head, self.anchors = given["class_head"], given["box_head"], given["anchors"]

    @property
    def config(self) -> ModelConfig:
        """The options that describe the network. Raises `ValueError` if it was built from parts without any."""
        if self._config is None:
            raise ValueError("this network was built from parts: give their options too, RetinaNet(..., config=...)")
        return self._config

    def forward(self, images_N3HW: Tensor) -> HeadOutputs:
        """Return scores and offsets at every anchor.

        Args:
            images_N3HW: normalised and padded as `images.prepare` does; any height and width.
        """
        levels = self.fpn(self.backbone(images_N3HW))
        anchors_A4, per_level = self.anchors(
            [(m.shape[-2], m.shape[-1]) for m in levels],
            like=images_N3HW,
            input_size=(images_N3HW.shape[-2], images_N3HW.shape[-1]),
        )
        return HeadOutputs(
            logits_NAK=self.class_head(levels),
            deltas_NA4=self.box_head(levels),
            anchors_A4=anchors_A4,
            anchors_per_level=per_level,
        )


def _check_parts(given: dict[str, Any], options: dict[str, Any]) -> None:
    """Raise `ValueError` unless all parts are given, and no option besides."""
    if missing := [name for name, part in given.items() if part is None]:
        raise ValueError(f"a network from parts needs all of them, missing: {', '.join(missing)}")
    if options:
        raise ValueError(f"give either parts or options, found both: {', '.join(options)}")
