"""The network: backbone, feature pyramid, heads and anchors."""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from annotated_types import Gt, Interval, MinLen

from retinanet.config.validation import check_options
from retinanet.errors import ConfigError

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
PositiveNumbers = Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network: backbone, feature pyramid, heads and anchors."""

    backbone: str = "resnet50"
    """timm's name of the backbone; any model with feature maps at strides 8, 16 and 32. Or package.module:factory, a
    function of your own that returns such a network."""
    stride_in_1x1: bool = False
    """Bottleneck blocks halve the map in their first, 1x1 convolution, as MSRA's ResNets and Detectron2's do."""
    levels: tuple[int, ...] = (3, 4, 5, 6, 7)
    """Pyramid levels; level l has stride 2^l. Consecutive, starting at 3, or at 2 for very small objects."""
    p6_from: Literal["c5", "p5"] = "c5"
    """What level 6 is computed from: the backbone's last map (the paper) or the pyramid's."""
    fpn_width: Annotated[int, Gt(0)] = 256
    """Channels of the feature pyramid."""
    head_width: Annotated[int, Gt(0)] = 256
    """Channels of the hidden layers of both heads."""
    head_depth: Annotated[int, Interval(ge=0, le=16)] = 4
    """Hidden 3x3 convolutions of each head."""
    head_norm: Literal["none", "group"] = "none"
    """Normalisation in the heads: none (the paper) or GroupNorm."""
    prior: Annotated[float, Interval(gt=0, lt=1)] = 0.01
    """pi: the probability that every anchor gives every class before training. 0.5 switches the prior off."""
    anchor_sizes: PositiveNumbers = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Side of the square anchor of each level, input pixels."""
    anchor_scales: PositiveNumbers = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    """Factors on that size, at every level."""
    anchor_ratios: PositiveNumbers = (0.5, 1.0, 2.0)
    """Height over width of the anchors, the area kept."""
    anchor_style: Literal["exact", "torchvision"] = "exact"
    """exact; or as torchvision's models were trained: sizes and corners rounded to whole pixels, strides inferred from
    the sizes of input and feature maps, so that they fall short where the input is no multiple of the coarsest."""

    def __post_init__(self) -> None:
        check_options(self)
        first = self.levels[0] if self.levels else None
        if first not in {2, 3} or self.levels != tuple(range(first, first + len(self.levels))) or self.levels[-1] < 5:
            raise ConfigError(f"levels must be consecutive, start at 2 or 3 and reach 5, found {self.levels}")
        if self.levels[-1] > 8:
            raise ConfigError(f"levels end at 8 (stride 256) at the most, found {self.levels}")
        if len(self.anchor_sizes) != len(self.levels):
            raise ConfigError(
                f"anchor_sizes needs one size for each of the {len(self.levels)} levels, found {self.anchor_sizes}"
            )

    @property
    def anchors_per_position(self) -> int:
        """A in the paper's figure 3: anchors at every position of a level."""
        return len(self.anchor_scales) * len(self.anchor_ratios)
