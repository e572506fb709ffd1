"""How an image becomes the network's input."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from annotated_types import Gt

from retinanet.config.annotations import MostUsed
from retinanet.config.model import IMAGENET_MEAN, IMAGENET_STD
from retinanet.config.validation import check_options
from retinanet.config.value_range import ValueRangeConfig
from retinanet.errors import ConfigError

Std = Annotated[float, Gt(0)]


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """How an image becomes the network's input, in training, prediction and serving."""

    PANEL: ClassVar = "Data"

    image_size: Annotated[int, Gt(0), MostUsed()] = 800
    """Length of the shorter side of the resized image, pixels. The side is shorter if the longer side would exceed
    `max_size`."""
    max_size: Annotated[int, Gt(0)] = 1333
    """Greatest length of the longer side of the resized image, pixels."""
    size_divisor: Annotated[int, Gt(0)] = 32
    """Each image is padded at the right and bottom to multiples of this number of pixels."""
    image_mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of each colour channel (red, green, blue) for normalisation, in [0, 1]. `train` uses the mean of the
    pretrained backbone unless this option is given."""
    image_std: tuple[Std, Std, Std] = IMAGENET_STD
    """Standard deviation of each colour channel (red, green, blue) for normalisation, in [0, 1]. `train` uses the
    standard deviation of the pretrained backbone unless this option is given."""
    value_range: ValueRangeConfig = field(default_factory=ValueRangeConfig)

    @property
    def bit_depth(self) -> int:
        """Number of bits that 16-bit images use; 0: all 16."""
        return self.value_range.bit_depth

    def __post_init__(self) -> None:
        check_options(self)
        if self.max_size < self.image_size:
            raise ConfigError(f"max_size must be at least image_size ({self.image_size}), found {self.max_size}")
