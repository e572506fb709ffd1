"""How an image becomes the network's input."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

from retinanet.config.model import IMAGENET_MEAN, IMAGENET_STD
from retinanet.config.validation import check_options
from retinanet.errors import ConfigError

Std = Annotated[float, Gt(0)]


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """How an image becomes the network's input: the same to train, predict and serve."""

    image_size: Annotated[int, Gt(0)] = 800
    """Shorter side of the resized image, pixels, unless the longer side would pass `max_size`."""
    max_size: Annotated[int, Gt(0)] = 1333
    """Longest side of the resized image, pixels."""
    size_divisor: Annotated[int, Gt(0)] = 32
    """Batches are padded at the right and bottom to multiples of this."""
    image_mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of each channel, RGB in [0, 1]. `train` takes the pretrained backbone's own unless it is given."""
    image_std: tuple[Std, Std, Std] = IMAGENET_STD
    """Standard deviation of each channel, likewise."""

    def __post_init__(self) -> None:
        check_options(self)
        if self.max_size < self.image_size:
            raise ConfigError(f"max_size {self.max_size} is below image_size {self.image_size}")
