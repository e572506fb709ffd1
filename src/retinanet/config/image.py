"""How an image becomes the network's input."""

from dataclasses import dataclass

from retinanet.config.model import IMAGENET_MEAN, IMAGENET_STD
from retinanet.config.validation import check_finite, check_positive
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """How a picture becomes the network's input: the same to train, predict and serve."""

    image_size: int = 800
    """Shorter side of the resized picture, pixels, unless the longer side would pass `max_size`."""
    max_size: int = 1333
    """Longest side of the resized picture, pixels."""
    size_divisor: int = 32
    """Batches are padded at the right and bottom to multiples of this."""
    image_mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of each channel, RGB in [0, 1]. `train` takes the pretrained backbone's own unless it is given."""
    image_std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation of each channel, likewise."""

    def __post_init__(self) -> None:
        check_finite(self)
        check_positive(self, "image_size", "max_size", "size_divisor")
        if self.max_size < self.image_size:
            raise ConfigError(f"max_size {self.max_size} is below image_size {self.image_size}")
        if min(self.image_std) <= 0:
            raise ConfigError(f"image_std must be above 0, found {self.image_std}")
