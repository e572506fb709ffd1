"""Where a training run starts: presets, initial weights, and settings computed from the training data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from retinanet.config.annotations import Flag, MostUsed, Panel
from retinanet.config.presets import PresetName
from retinanet.config.validation import check_options

FreezeName = Literal["none", "backbone", "backbone+fpn"]


@dataclass(frozen=True, kw_only=True)
class PresetConfig:
    """The named set of options that all other options change."""

    PANEL: ClassVar = "Model"

    preset: Annotated[PresetName, MostUsed()] = "default"
    """Named set of options: default (ResNet-50), paper (default with alpha 0.25) or small (EfficientNet-Lite0, 512
    pixels, for a laptop)."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """The weights that a run starts with, and the parts of the network that are not trained."""

    PANEL: ClassVar = "Model"

    pretrained: bool = True
    """Start from ImageNet weights of the backbone. `--no-pretrained` starts from random weights."""
    backbone_weights: Path | None = None
    """Local file with the ImageNet weights of the backbone (.safetensors or .pth), for machines without internet
    access."""
    start_from: Annotated[Path | None, Flag("--from"), MostUsed()] = None
    """Checkpoint to start from instead of ImageNet weights. The network and its normalisation are taken from the
    checkpoint; outputs of classes with the same name keep their weights. Options of the image size, the matching and
    the loss that are not given are also taken from the checkpoint."""
    freeze: FreezeName = "none"
    """Parts of the network that are not trained: none, backbone, or backbone+fpn. Useful for little data together with
    `--from`."""
    freeze_batchnorm: bool = True
    """Keep the statistics and weights of the BatchNorm layers of a pretrained backbone fixed."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class FittedConfig:
    """Settings that are computed from the training data."""

    PANEL: ClassVar = "Anchors and matching"

    anchors: Annotated[Literal["given", "as_needed", "auto"], MostUsed()] = "as_needed"
    """given: use `levels` and the anchor sizes, scales and ratios as given. auto: fit these to the training objects.
    as_needed: fit these only if fewer than 98 % of the training objects have a positive anchor."""
    balance_classes: Annotated[bool, Panel("Loss")] = False
    """Set `class_alpha` from the number of objects of each class, so that rarer classes get a larger weight."""

    def __post_init__(self) -> None:
        check_options(self)
