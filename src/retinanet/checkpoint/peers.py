"""The peers, projects with a RetinaNet of their own: tensor names and training options of torchvision and Detectron2.

A state dict contains no anchors, preprocessing, post-processing or losses. Their values are those of the published
models: torchvision's `retinanet_resnet50_fpn` and `_v2`, Detectron2's `COCO-Detection/retinanet_*`.
This module does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Project = Literal["torchvision", "detectron2"]
Names = Callable[[str, int], Sequence[str]]

BGR_MEAN: Final = (103.53, 116.28, 123.675)
"""Pixel mean of Detectron2's MSRA backbones, BGR, 0 to 255. Their standard deviation is 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """Tensor names and training options of another project's RetinaNet.

    Args:
        marker: start of the names of tensors that only this project's RetinaNets have.
        names: function of a tensor name of `RetinaNet` and the number of layers per hidden convolution of a head (3
            with a norm, otherwise 2). Returns the project's names of the tensor, the current one first.
        stage: regular expression for tensors of a backbone block. Its groups are the stage and the block index.
        bottleneck: name of a tensor that only ResNets with bottleneck blocks have.
        class_output: name of the weight of the last classification convolution.
        box_output: name of the weight of the last regression convolution.
        hidden: regular expression for the weights of the classification head's hidden convolutions.
        coarse: name of the weight of the convolution that makes P6.
        trained_with: training options, fields of `TrainConfig`.
    """

    marker: str
    names: Names
    stage: str
    bottleneck: str
    class_output: str
    box_output: str
    hidden: str
    coarse: str
    trained_with: Mapping[str, Any]


def _torchvision_names(name: str, step: int) -> Sequence[str]:
    """Return torchvision's names of a tensor, see `Peer.names`."""
    part, _, rest = name.partition(".")
    if part == "backbone":
        return (name,)
    if part == "fpn":
        which, number, kind = rest.split(".")
        if which == "coarse":
            return (f"backbone.fpn.extra_blocks.p{6 + int(number)}.{kind}",)
        blocks = f"backbone.fpn.{'inner' if which == 'lateral' else 'layer'}_blocks.{number}"
        return (f"{blocks}.0.{kind}", f"{blocks}.{kind}")
    head = "head.classification_head" if part == "class_head" else "head.regression_head"
    if rest.startswith("output."):
        return (f"{head}.{'cls_logits' if part == 'class_head' else 'bbox_reg'}.{rest.removeprefix('output.')}",)
    _, number, kind = rest.split(".")
    names = [f"{head}.conv.{int(number) // step}.{int(number) % step}.{kind}"]
    return (*names, f"{head}.conv.{number}.{kind}") if step == 2 else names


def _detectron2_names(name: str, step: int) -> Sequence[str]:
    """Return Detectron2's name of a tensor, see `Peer.names`."""
    part, _, rest = name.partition(".")
    if part == "backbone":
        name = rest.removeprefix("body.")
        name = re.sub(r"^layer(\d)", lambda stage: f"res{int(stage[1]) + 1}", name)
        name = re.sub(r"^(conv1|bn1)", r"stem.\1", name)
        name = name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
        return ("backbone.bottom_up." + re.sub(r"\bbn(\d)\.", r"conv\1.norm.", name),)
    if part == "fpn":
        which, number, kind = rest.split(".")
        if which == "coarse":
            return (f"backbone.top_block.p{6 + int(number)}.{kind}",)
        return (f"backbone.fpn_{which}{3 + int(number)}.{kind}",)
    which = "cls" if part == "class_head" else "bbox"
    if rest.startswith("output."):
        return (f"head.{'cls_score' if which == 'cls' else 'bbox_pred'}.{rest.removeprefix('output.')}",)
    return (f"head.{which}_subnet.{rest.removeprefix('hidden.')}",)


def preprocessing(bgr_mean: Sequence[float], bgr_std: Sequence[float]) -> dict[str, tuple[float, ...]]:
    """Return image_mean and image_std (RGB in [0, 1]) for Detectron2's pixel mean and deviation (BGR, 0 to 255)."""
    return {
        "image_mean": tuple(value / 255 for value in reversed(bgr_mean)),
        "image_std": tuple(value / 255 for value in reversed(bgr_std)),
    }


_BOTH: Final = {
    "image_size": 800,
    "max_size": 1333,
    "size_divisor": 32,
    "positive_iou": 0.5,
    "negative_iou": 0.4,
    "low_quality_matches": True,
    "loss": "focal",
    "alpha": 0.25,
    "gamma": 2.0,
    "box_loss": "l1",
    "score_threshold": 0.05,
    "nms_threshold": 0.5,
    "candidates_per_level": 1000,
}
PEERS: Final[Mapping[Project, Peer]] = {
    "torchvision": Peer(
        marker="backbone.fpn.inner_blocks.",
        names=_torchvision_names,
        stage=r"backbone\.body\.layer(\d)\.(\d+)\.",
        bottleneck="backbone.body.layer1.0.conv3.weight",
        class_output="head.classification_head.cls_logits.weight",
        box_output="head.regression_head.bbox_reg.weight",
        hidden=r"head\.classification_head\.conv\.\d+(\.0)?\.weight",
        coarse="backbone.fpn.extra_blocks.p6.weight",
        trained_with={**_BOTH, "normaliser": "image", "max_detections": 300},
    ),
    "detectron2": Peer(
        marker="backbone.bottom_up.",
        names=_detectron2_names,
        stage=r"backbone\.bottom_up\.res(\d)\.(\d+)\.",
        bottleneck="backbone.bottom_up.res2.0.conv3.weight",
        class_output="head.cls_score.weight",
        box_output="head.bbox_pred.weight",
        hidden=r"head\.cls_subnet\.\d+\.weight",
        coarse="backbone.top_block.p6.weight",
        trained_with={
            **_BOTH,
            "max_detections": 100,
            "clip_before_nms": False,
            **preprocessing(BGR_MEAN, (1.0, 1.0, 1.0)),
        },
    ),
}
