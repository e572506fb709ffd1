"""Augmentation of training images."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Interval

from retinanet.config.validation import check_options
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to an image between the disk and the network while training. 0 switches a step off."""

    augment: bool = True
    """False switches all of it off, except `transform`."""
    flip: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.5
    """Probability of a horizontal flip."""
    vertical_flip: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.0
    """Probability of a vertical flip; for images without an up and down, as under a microscope."""
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    """Each image is resized by a random factor between these two on top of `image_size`."""
    multi_scale: tuple[Annotated[int, Gt(0)], ...] = ()
    """Each batch takes its `image_size` from this list; empty: always `image_size`."""
    color_jitter: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.0
    """Strength of random brightness, contrast, saturation (this) and hue (a tenth of this)."""
    crop: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.0
    """Probability of a random crop; it keeps at least one object whole and drops those whose centre it cuts off."""
    min_crop: Annotated[float, Interval(gt=0, le=1)] = 0.5
    """The smallest crop, as a share of each side."""
    transform: str | None = None
    """Transform of your own for training images: package.module:factory. It is applied after retinanet's own
    augmentation (flips, crops, colours) and before the image is resized for the network. With `--no-augment`, the
    transform is the only augmentation."""

    def __post_init__(self) -> None:
        check_options(self)
        low, high = self.scale_jitter
        if not 0 < low <= high:
            raise ConfigError(f"scale_jitter needs two factors above 0, the smaller first, found {self.scale_jitter}")
