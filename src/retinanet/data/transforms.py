"""What happens to an image and its boxes while training. Every random number comes from the generator passed in.

Shape suffixes: G objects of an image. Boxes are xyxy pixels of the image as it is at that point.
torchvision's v2 kernels do the work, its v2 classes do not: they draw from the global random state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from retinanet import images

if TYPE_CHECKING:
    from PIL import Image
    from torch import Generator, Tensor

    from retinanet.config import AugmentConfig, ImageConfig

SMALLEST_SIDE: Final = 1.0
"""Input pixels. What is thinner after resizing is left out: it holds no pixel, and its width's logarithm diverges."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """An image with its objects, on the way to the network.

    Args:
        image: RGB.
        boxes_G4: float64, xyxy, pixels of `image`.
        labels_G: int64.
        crowd_G: bool.
    """

    image: Image.Image
    boxes_G4: Tensor
    labels_G: Tensor
    crowd_G: Tensor

    def keep(self, keep_G: Tensor) -> Scene:
        """Return the scene with the chosen objects only."""
        return replace(
            self, boxes_G4=self.boxes_G4[keep_G], labels_G=self.labels_G[keep_G], crowd_G=self.crowd_G[keep_G]
        )


def augment(scene: Scene, config: AugmentConfig, generator: Generator) -> Scene:
    """Crop, flip and change the colours of a scene, as `config` says. Resizing comes after: see `resize`.

    Each step draws its numbers whether it is applied or not, so that one option does not change what another draws.
    """
    crop_chance, flip_chance, vertical_chance = _uniform(3, generator)
    crop_numbers, color_numbers = _uniform(5, generator), _uniform(4, generator)
    if crop_chance < config.crop:
        scene = crop(scene, min_crop=config.min_crop, numbers=crop_numbers)
    if flip_chance < config.flip:
        scene = _on_both(F.horizontal_flip, scene)
    if vertical_chance < config.vertical_flip:
        scene = _on_both(F.vertical_flip, scene)
    if config.color_jitter > 0:
        scene = replace(scene, image=color_jitter(scene.image, config.color_jitter, color_numbers))
    return scene


def jittered_size(image_size: int, config: AugmentConfig, generator: Generator) -> int:
    """Return `image_size` times a factor within `scale_jitter`, uniform in its logarithm: 1/2 is as likely as 2."""
    low, high = (math.log(factor) for factor in config.scale_jitter)
    return max(1, round(image_size * math.exp(low + (high - low) * _uniform(1, generator)[0])))


def crop(scene: Scene, *, min_crop: float, numbers: list[float]) -> Scene:
    """Cut out a part with each side at least `min_crop` of the whole, with at least one object whole within.

    Objects whose centre is cut off are dropped, others are clipped; crowd regions are clipped.

    Args:
        scene: what to cut; without objects any part may be cut out.
        min_crop: in (0, 1].
        numbers: five of them, uniform in [0, 1): the object to keep, width and height, left and top.
    """
    width, height = scene.image.size
    objects = scene.boxes_G4[~scene.crowd_G]
    x1, y1, x2, y2 = 0.0, 0.0, 0.0, 0.0
    if len(objects):
        x1, y1, x2, y2 = objects[int(numbers[0] * len(objects))].tolist()
    left, crop_width = _cut(width, x1, x2, len(objects) > 0, min_crop, numbers[1], numbers[3])
    top, crop_height = _cut(height, y1, y2, len(objects) > 0, min_crop, numbers[2], numbers[4])
    centers_G2 = (scene.boxes_G4[:, :2] + scene.boxes_G4[:, 2:]) / 2
    low, high = torch.tensor([left, top]), torch.tensor([left + crop_width, top + crop_height])
    kept_G = ((centers_G2 >= low) & (centers_G2 <= high)).all(dim=1) | scene.crowd_G
    cut = _on_both(lambda x: F.crop(x, top, left, crop_height, crop_width), scene)
    sides_G2 = cut.boxes_G4[:, 2:] - cut.boxes_G4[:, :2]
    return cut.keep(kept_G & (sides_G2 > 0).all(dim=1))


def _cut(
    side: int, start: float, end: float, keep: bool, min_crop: float, length_number: float, place_number: float
) -> tuple[int, int]:
    """Return (first pixel, pixels) of a random part of one side that keeps [start, end] whole if `keep`."""
    low, high = (math.floor(start), math.ceil(end)) if keep else (0, 0)
    length = max(math.ceil(side * (min_crop + (1 - min_crop) * length_number)), high - low, 1)
    first, last = (max(0, high - length), min(low, side - length)) if keep else (0, side - length)
    return first + int(place_number * (last - first + 1)), length


def color_jitter(image: Image.Image, strength: float, numbers: list[float]) -> Image.Image:
    """Change brightness, contrast and saturation by up to `strength`, and the hue by up to a tenth of it.

    Args:
        image: RGB.
        strength: in [0, 1].
        numbers: four of them, uniform in [0, 1).
    """
    brightness, contrast, saturation, hue = ((2 * number - 1) * strength for number in numbers)
    image = F.adjust_brightness(image, 1 + brightness)
    image = F.adjust_contrast(image, 1 + contrast)
    image = F.adjust_saturation(image, 1 + saturation)
    return F.adjust_hue(image, hue / 10)  # type: ignore[no-any-return]


def resize(scene: Scene, config: ImageConfig, *, image_size: int) -> Scene:
    """Resize a scene for the network, and leave out objects that end up thinner than a pixel.

    `max_size` is scaled along with `image_size`, or else the image could not grow where it is the bound: see
    `max_size_for`.
    """
    max_size = max_size_for(config, image_size=image_size)
    width, height = images.resized_size(*scene.image.size, image_size=image_size, max_size=max_size)
    scale = torch.tensor([width / scene.image.width, height / scene.image.height], dtype=torch.float64)
    boxes_G4 = scene.boxes_G4 * scale.repeat(2)
    sides_G2 = boxes_G4[:, 2:] - boxes_G4[:, :2]
    scene = replace(scene, image=images.resize(scene.image, (width, height)), boxes_G4=boxes_G4)
    return scene.keep((sides_G2 >= SMALLEST_SIDE - 1e-6).all(dim=1))


def max_size_for(config: ImageConfig, *, image_size: int) -> int:
    """Return the bound of the longer side that goes with another `image_size` than the config's."""
    return max(image_size, round(config.max_size * image_size / config.image_size))


def _on_both(function: Callable[[Any], Any], scene: Scene) -> Scene:
    """Apply a geometric v2 kernel to the image and its boxes."""
    boxes = tv_tensors.BoundingBoxes(scene.boxes_G4, format="XYXY", canvas_size=(scene.image.height, scene.image.width))
    return replace(scene, image=function(scene.image), boxes_G4=function(boxes).as_subclass(torch.Tensor))


def _uniform(count: int, generator: Generator) -> list[float]:
    """Return numbers in [0, 1); float64, or else a rounding could give 1."""
    numbers: list[float] = torch.rand(count, generator=generator, dtype=torch.float64).tolist()
    return numbers
