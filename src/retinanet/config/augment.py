"""Augmentation of training images."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Interval

from retinanet.config.validation import check_options
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes to training images between reading and the network. Probability 0 switches a change off."""

    PANEL: ClassVar = "Augmentation"

    augment: bool = True
    """Augment training images. `--no-augment` switches off every augmentation except `transform`."""
    flip: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.5
    """Probability of a horizontal flip."""
    vertical_flip: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.0
    """Probability of a vertical flip. Useful for images without an up and down, such as microscope images."""
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest random factor on the size of each training image, after resizing to `image_size`. Both are
    above 0."""
    multi_scale: tuple[Annotated[int, Gt(0)], ...] = ()
    """Values of `image_size`, pixels; each training batch takes one of these values at random. Empty: every batch takes
    `image_size`."""
    color_jitter: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.0
    """Strength of random changes of brightness, contrast and saturation. The hue changes by a tenth of this
    strength."""
    crop: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.0
    """Probability of a random crop. A crop keeps at least one object whole and drops objects whose centre lies
    outside."""
    min_crop: Annotated[float, Interval(gt=0, le=1)] = 0.5
    """Smallest crop, as a fraction of each side of the image."""
    copy_paste: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.0
    """Probability of pasting 1 to 3 objects of other training images, objects of rare classes most often, never onto
    an object. In the long-tail benchmark, probability 1 raised the AP of the rare classes by 9.5 points, and by 11.8
    points together with the sampler repeat_factor."""
    mosaic: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.0
    """Probability of a mosaic: random parts of 4 training images, 2 x 2 in one image, at 0.5 to 1 times their size. Off
    by default: no measurement supports a gain of mosaic yet."""
    mixup: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.0
    """Probability of mixup: the weighted mean of two training images, with the objects of both. Off by default: no
    measurement supports a gain of mixup yet."""
    close_augment: Annotated[int, Ge(0)] = 0
    """Number of epochs at the end of training without `copy_paste`, `mosaic` and `mixup`; at most `epochs`."""
    transform: str | None = None
    """Your own transform for training images, as package.module:factory. It runs after retinanet's own augmentation
    (flips, crops, colours) and before the image is resized for the network. With `--no-augment`, the transform is the
    only augmentation."""

    def __post_init__(self) -> None:
        check_options(self)
        low, high = self.scale_jitter
        if not 0 < low <= high:
            raise ConfigError(f"scale_jitter must be two factors above 0, the smaller first, found {self.scale_jitter}")

    @property
    def combining(self) -> tuple[str, ...]:
        """Names of the augmentations in use that combine a training image with other images."""
        return tuple(name for name in ("copy_paste", "mosaic", "mixup") if self.augment and getattr(self, name) > 0)

    @property
    def most_images(self) -> int:
        """Maximum number of images whose objects a training sample holds, besides single objects of copy-paste."""
        return 1 + self.augment * (3 * (self.mosaic > 0) + (self.mixup > 0))
