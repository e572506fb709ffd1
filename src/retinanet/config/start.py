"""Where a training run starts: presets, initial weights, and settings computed from the training data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from retinanet.config.annotations import Flag
from retinanet.config.presets import PresetName
from retinanet.config.validation import check_options

FreezeName = Literal["none", "backbone", "backbone+fpn"]


@dataclass(frozen=True, kw_only=True)
class PresetConfig:
    """The named set of options that all others are changes of."""

    preset: PresetName = "default"
    """default (ResNet-50), paper (the same, alpha 0.25) or small (EfficientNet-Lite0 at 512, for a laptop)."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """The weights that a run starts with, and the parts that it keeps as they are."""

    pretrained: bool = True
    """Start from ImageNet weights of the backbone."""
    backbone_weights: Path | None = None
    """A local file with those weights (.safetensors, .pth), where nothing can be downloaded."""
    start_from: Annotated[Path | None, Flag("--from")] = None
    """Checkpoint to start from instead of ImageNet weights (`--from`): its network and normalisation are used, and its
    knowledge of the classes that stay is kept."""
    freeze: FreezeName = "none"
    """Parts that stay as they are: none, backbone, or backbone+fpn. For a little data, with `start_from`."""
    freeze_batchnorm: bool = True
    """Keep the BatchNorm of a pretrained backbone as it is (statistics and affine weights)."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class FittedConfig:
    """Settings that are computed from the training data instead of given."""

    anchors: Literal["given", "auto"] = "given"
    """auto: fit anchor_sizes, anchor_ratios and levels to the training data instead of taking them as given."""
    balance_classes: bool = False
    """Set `class_alpha` from how often each class occurs: rarer classes get more weight."""

    def __post_init__(self) -> None:
        check_options(self)
