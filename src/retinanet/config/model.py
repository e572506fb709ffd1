"""The network: backbone, feature pyramid, heads and anchors."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

from annotated_types import Gt, Interval, MinLen

from retinanet.config.annotations import MostUsed, Panel
from retinanet.config.validation import check_options
from retinanet.errors import ConfigError

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
PositiveNumbers = Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network: backbone, feature pyramid, heads and anchors."""

    PANEL: ClassVar = "Model"

    backbone: Annotated[str, MostUsed()] = "resnet50"
    """Backbone: name of a timm model with feature maps at strides 8, 16 and 32. Or your own, as package.module:factory,
    a function that returns such a network."""
    stride_in_1x1: bool = False
    """Put the stride of bottleneck blocks into the first 1x1 convolution, as MSRA's and Detectron2's ResNets do. Needed
    for their weights."""
    levels: tuple[int, ...] = (3, 4, 5, 6, 7)
    """Feature levels; level l has stride 2^l pixels. The levels are consecutive, start at 2 to 5 and end at 8 or below.
    Level 2 is for very small objects. Every pyramid uses the backbone's maps down to stride 32, whatever the levels."""
    p6_from: Literal["c5", "p5"] = "c5"
    """Input of feature level 6: c5 (last map of the backbone, as in the paper) or p5 (last map of the pyramid)."""
    fpn_width: Annotated[int, Gt(0)] = 256
    """Number of channels of the feature pyramid."""
    head_width: Annotated[int, Gt(0)] = 256
    """Number of channels of the hidden layers of both heads."""
    head_depth: Annotated[int, Interval(ge=0, le=16)] = 4
    """Number of hidden 3x3 convolutions in each head."""
    head_norm: Literal["none", "group"] = "none"
    """Normalisation in the heads: none (as in the paper) or group (GroupNorm)."""
    prior: Annotated[float, Interval(gt=0, lt=1), Panel("Loss")] = 0.01
    """Probability pi of every class at every anchor before training. 0.5 switches the prior off."""
    anchor_sizes: Annotated[PositiveNumbers, Panel("Anchors and matching")] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Side of the square anchor of each feature level, pixels of the resized image."""
    anchor_scales: Annotated[PositiveNumbers, Panel("Anchors and matching")] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    """Factors on `anchor_sizes`, applied at every feature level."""
    anchor_ratios: Annotated[PositiveNumbers, Panel("Anchors and matching")] = (0.5, 1.0, 2.0)
    """Aspect ratios of the anchors: height divided by width. The area stays the same."""
    anchor_style: Annotated[Literal["exact", "torchvision"], Panel("Anchors and matching")] = "exact"
    """exact: anchors as defined. torchvision: anchors as in torchvision's RetinaNet, with corners rounded to whole
    pixels and strides inferred from the sizes of input and feature maps. Needed for weights from torchvision."""

    def __post_init__(self) -> None:
        check_options(self)
        first = self.levels[0] if self.levels else None
        if first not in {2, 3, 4, 5} or self.levels != tuple(range(first, first + len(self.levels))):
            raise ConfigError(f"levels must be consecutive and start at 2, 3, 4 or 5, found {self.levels}")
        if self.levels[-1] > 8:
            raise ConfigError(f"levels end at 8 (stride 256) or below, found {self.levels}")
        if len(self.anchor_sizes) != len(self.levels):
            raise ConfigError(
                f"anchor_sizes needs one size for each of the {len(self.levels)} levels, found {self.anchor_sizes}"
            )

    @property
    def anchors_per_position(self) -> int:
        """Number of anchors at every position of a feature level: A in the paper's figure 3."""
        return len(self.anchor_scales) * len(self.anchor_ratios)
