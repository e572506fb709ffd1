"""The network: normalised images to class logits and box offsets at every anchor, without loss, decoding or NMS."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from retinanet.config import ModelConfig, resolve
from retinanet.model.build import build_parts
from retinanet.types import HeadOutputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.model.anchors import AnchorGenerator
    from retinanet.model.fpn import FeaturePyramid
    from retinanet.model.heads import Head


def dense_outputs(model: Any, images_N3HW: Tensor) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Return logits_NAK, deltas_NA4 and the sizes of the feature levels.

    Args:
        model: network with the parts `backbone`, `fpn`, `class_head` and `box_head`.
        images_N3HW: float, normalised and padded as by `images.prepare`, of any height and width.
    """
    levels = model.fpn(model.backbone(images_N3HW))
    return model.class_head(levels), model.box_head(levels), level_sizes(levels)


def level_sizes(levels: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return (height, width) of each feature level."""
    return [(m.shape[-2], m.shape[-1]) for m in levels]


class CompilableNetwork(nn.Module):
    """Base class of networks with the parts of `dense_outputs`, which torch.compile compiles in place."""

    _dense = staticmethod(dense_outputs)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickling. A copy of a compiled network is not compiled."""
        state = super().__getstate__()  # type: ignore[no-untyped-call]
        return {name: value for name, value in state.items() if name != "_dense"}

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the network in place, with the arguments of `torch.compile`.

        By default, one compiled code accepts any image size. The anchors are not compiled: their number would be a
        constant of the code. A backbone with TensorFlow's padding, whose width depends on the image size, is compiled
        for each size: the search for one code takes torch more than five minutes.
        """
        pads_by_size = any(type(module).__name__.endswith("Same") for module in self.modules())  # timm's names
        self._dense = torch.compile(dense_outputs, *args, **{"dynamic": not pads_by_size, **options})


class RetinaNet(CompilableNetwork):
    """RetinaNet (Lin et al., arXiv 1708.02002). Maps images_N3HW to `HeadOutputs`, in train and eval mode alike.

    `RetinaNet(num_classes=3, backbone="resnet50")` builds the parts that the options describe. With `pyramid`,
    `class_head`, `box_head`, `anchors` and a module as `backbone`, the network consists of these parts.

    The weights are random. `load_pretrained(model.backbone)` loads ImageNet weights, `retinanet.load` loads a trained
    detector.

    Args:
        num_classes: number of classes K. Class ids are 0 to K - 1, without a background id. By default, a network from
            parts takes K from `class_head`.
        config: all options of the architecture. A network from parts needs a config to be saved and to predict.
        backbone: timm's name of a model, `package.module:factory`, or a module that maps images to feature maps, finest
            first.
        pyramid: module that maps feature maps to feature levels of one width.
        class_head: module that maps feature levels to (N, A, K) logits. Its attribute `values` is K.
        box_head: module that maps feature levels to (N, A, 4) offsets.
        anchors: module that maps the sizes of feature levels to anchors, see `AnchorGenerator.forward`.
        options: fields of `ModelConfig` that differ from their defaults, such as `head_depth=2`.

    Raises:
        ConfigError: an unknown option or an invalid value.
        BackboneError: a backbone that does not exist, or that has no feature maps at the required strides.
        ValueError: fewer than one class, an incomplete set of parts, or both parts and options.
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
        parts: dict[str, Any] = {
            "backbone": backbone,
            "pyramid": pyramid,
            "class_head": class_head,
            "box_head": box_head,
            "anchors": anchors,
        }
        from_parts = any(part is not None for part in parts.values())
        if config is not None and options:
            raise ValueError(f"expected either config or options, found config and the options {', '.join(options)}")
        if from_parts:
            _check_parts(parts, options)
            num_classes = parts["class_head"].values if num_classes is None else num_classes
        num_classes = _checked_count(num_classes)
        if not from_parts:
            config = config or resolve(ModelConfig, options)
            built = build_parts(num_classes=num_classes, config=config)
            parts = {name: getattr(built, name) for name in parts}
        self._config = config
        self.num_classes = num_classes
        self.backbone = parts["backbone"]
        self.fpn = parts["pyramid"]  # the name `fpn` is part of the checkpoint format
        self.class_head, self.box_head, self.anchors = parts["class_head"], parts["box_head"], parts["anchors"]

    @property
    def config(self) -> ModelConfig:
        """Options that describe the network. Raises `ValueError` for a network from parts without a config."""
        if self._config is None:
            raise ValueError(
                "expected a config, found none, because the network was built from parts: pass "
                "RetinaNet(..., config=ModelConfig(...))"
            )
        return self._config

    def forward(self, images_N3HW: Tensor) -> HeadOutputs:
        """Return class logits, box offsets and anchors.

        Args:
            images_N3HW: float, normalised and padded as by `images.prepare`, of any height and width.
        """
        logits_NAK, deltas_NA4, sizes = self._dense(self, images_N3HW)
        anchors_A4, per_level = self.anchors(
            sizes, like=images_N3HW, input_size=(images_N3HW.shape[-2], images_N3HW.shape[-1])
        )
        return HeadOutputs(
            logits_NAK=logits_NAK, deltas_NA4=deltas_NA4, anchors_A4=anchors_A4, anchors_per_level=per_level
        )


def _check_parts(parts: dict[str, Any], options: dict[str, Any]) -> None:
    """Raise `ValueError` if a part is missing or an option is set."""
    if missing := [name for name, part in parts.items() if part is None]:
        raise ValueError(f"expected all of the parts {', '.join(parts)}, missing: {', '.join(missing)}")
    if options:
        raise ValueError(f"expected either parts or options, found parts and the options {', '.join(options)}")


def _checked_count(num_classes: object) -> int:
    """Return the number of classes. Raises `ValueError` for everything but an integer of 1 or more."""
    count = operator.index(num_classes) if hasattr(num_classes, "__index__") else 0
    if count < 1 or isinstance(num_classes, bool):
        raise ValueError(f"num_classes must be an integer of 1 or more, found {num_classes!r:.100}")
    return count
