"""Augmentation and resizing of an image and its boxes. Every random number comes from a generator argument.

Shape suffixes: G objects of an image. Boxes are xyxy, pixels of the current image.
This module uses torchvision's v2 functions. Its v2 classes draw from the global random state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from retinanet import boxes, images
from retinanet.data.tiling import MIN_VISIBLE_SHARE

if TYPE_CHECKING:
    from PIL import Image
    from torch import Generator, Tensor

    from retinanet.config import AugmentConfig, ImageConfig

MIN_BOX_SIDE: Final = 1.0
"""Minimum side of a box after resizing, input pixels. A thinner box covers no pixel, and log(width) diverges."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """An image with its objects, before and during augmentation.

    Args:
        image: RGB image.
        boxes_G4: float64, xyxy, pixels of `image`.
        labels_G: int64 class ids, from 0.
        crowd_G: bool, true for crowd regions, which are ignored.
    """

    image: Image.Image
    boxes_G4: Tensor
    labels_G: Tensor
    crowd_G: Tensor

    def keep(self, keep_G: Tensor) -> Scene:
        """Return the scene with only the objects that `keep_G` selects, a boolean mask."""
        return replace(
            self, boxes_G4=self.boxes_G4[keep_G], labels_G=self.labels_G[keep_G], crowd_G=self.crowd_G[keep_G]
        )


def augment(scene: Scene, config: AugmentConfig, generator: Generator) -> Scene:
    """Return a scene that is randomly cropped, flipped and changed in colour. Resizing follows in `resize`.

    Every step draws its random numbers even if it is switched off. The random numbers of one step then do not depend
    on the options of another.
    """
    crop_chance, flip_chance, vertical_chance = _uniform(3, generator)
    crop_numbers, color_numbers = _uniform(5, generator), _uniform(4, generator)
    if crop_chance < config.crop:
        scene = crop(scene, min_crop=config.min_crop, numbers=crop_numbers)
    if flip_chance < config.flip:
        scene = _apply_geometric(F.horizontal_flip, scene)
    if vertical_chance < config.vertical_flip:
        scene = _apply_geometric(F.vertical_flip, scene)
    if config.color_jitter > 0:
        scene = replace(scene, image=color_jitter(scene.image, config.color_jitter, color_numbers))
    return scene


def jittered_size(image_size: int, config: AugmentConfig, generator: Generator) -> int:
    """Return `image_size` times a random factor within `scale_jitter`. The factor's logarithm is uniform."""
    low, high = (math.log(factor) for factor in config.scale_jitter)
    return max(1, round(image_size * math.exp(low + (high - low) * _uniform(1, generator)[0])))


def crop(scene: Scene, *, min_crop: float, numbers: list[float]) -> Scene:
    """Return a random crop that contains at least one complete object, if the scene has any.

    Objects whose centre lies outside the crop are dropped. Other objects and crowd regions are clipped.

    Args:
        scene: image to crop.
        min_crop: minimum width and height of the crop as a share of the image's, in (0, 1].
        numbers: five random numbers, uniform in [0, 1). They select the object to keep, width, height, left and top.
    """
    width, height = scene.image.size
    objects = scene.boxes_G4[~scene.crowd_G]
    x1, y1, x2, y2 = 0.0, 0.0, 0.0, 0.0
    if len(objects):
        x1, y1, x2, y2 = objects[int(numbers[0] * len(objects))].tolist()
    left, crop_width = _crop_side(width, x1, x2, len(objects) > 0, min_crop, numbers[1], numbers[3])
    top, crop_height = _crop_side(height, y1, y2, len(objects) > 0, min_crop, numbers[2], numbers[4])
    centers_G2 = (scene.boxes_G4[:, :2] + scene.boxes_G4[:, 2:]) / 2
    low, high = (scene.boxes_G4.new_tensor(corner) for corner in ([left, top], [left + crop_width, top + crop_height]))
    keep_G = ((centers_G2 >= low) & (centers_G2 <= high)).all(dim=1) | scene.crowd_G
    cropped = _apply_geometric(lambda x: F.crop(x, top, left, crop_height, crop_width), scene)
    sides_G2 = cropped.boxes_G4[:, 2:] - cropped.boxes_G4[:, :2]
    return cropped.keep(keep_G & (sides_G2 > 0).all(dim=1))


def _crop_side(
    side: int, start: float, end: float, keep: bool, min_crop: float, length_number: float, place_number: float
) -> tuple[int, int]:
    """Return (first pixel, length) of a random part of one side. With `keep`, the part contains [start, end]."""
    low, high = (math.floor(start), math.ceil(end)) if keep else (0, 0)
    length = max(math.ceil(side * (min_crop + (1 - min_crop) * length_number)), high - low, 1)
    first, last = (max(0, high - length), min(low, side - length)) if keep else (0, side - length)
    return first + int(place_number * (last - first + 1)), length


def color_jitter(image: Image.Image, strength: float, numbers: list[float]) -> Image.Image:
    """Return an image with brightness, contrast and saturation changed by up to `strength`, hue by `strength` / 10.

    Args:
        image: RGB image.
        strength: maximum relative change, in [0, 1].
        numbers: four random numbers, uniform in [0, 1). They set brightness, contrast, saturation and hue.
    """
    brightness, contrast, saturation, hue = ((2 * number - 1) * strength for number in numbers)
    image = F.adjust_brightness(image, 1 + brightness)
    image = F.adjust_contrast(image, 1 + contrast)
    image = F.adjust_saturation(image, 1 + saturation)
    return F.adjust_hue(image, hue / 10)  # type: ignore[no-any-return]


def resize(scene: Scene, config: ImageConfig, *, image_size: int) -> Scene:
    """Return a scene resized for the network, without objects that become thinner than `MIN_BOX_SIDE`.

    The bound of the longer side is scaled with `image_size`, see `max_size_for`.
    """
    max_size = max_size_for(config, image_size=image_size)
    width, height = images.resized_size(*scene.image.size, image_size=image_size, max_size=max_size)
    scale = torch.tensor([width / scene.image.width, height / scene.image.height], dtype=torch.float64)
    boxes_G4 = scene.boxes_G4 * scale.repeat(2)
    scene = replace(scene, image=images.resize(scene.image, (width, height)), boxes_G4=boxes_G4)
    return scene.keep(is_thick(boxes_G4))


def is_thick(boxes_G4: Tensor) -> Tensor:
    """Return whether each box (xyxy, resized image) has sides of at least `MIN_BOX_SIDE`, (G,)."""
    return (boxes_G4[:, 2:] - boxes_G4[:, :2] >= MIN_BOX_SIDE - 1e-6).all(dim=1)


def visible_objects(scene: Scene, window: tuple[float, float, float, float]) -> Scene:
    """Return the scene with only the objects inside a window, clipped to it. The image and the origin do not change.

    An object of which the window shows less than `MIN_VISIBLE_SHARE` becomes a crowd region, as in a tile.
    """
    window_4 = scene.boxes_G4.new_tensor(window)
    share_G = boxes.intersection(scene.boxes_G4, window_4) / boxes.area(scene.boxes_G4)
    clipped_G4 = torch.cat(
        [torch.maximum(scene.boxes_G4[:, :2], window_4[:2]), torch.minimum(scene.boxes_G4[:, 2:], window_4[2:])], dim=1
    )
    clipped = replace(scene, boxes_G4=clipped_G4, crowd_G=scene.crowd_G | (share_G < MIN_VISIBLE_SHARE))
    return clipped.keep(share_G > 0)


def max_size_for(config: ImageConfig, *, image_size: int) -> int:
    """Return the maximum of the longer side for an `image_size` that differs from the config's.

    `config.max_size` is scaled in proportion. Otherwise images that it bounds would not change with `image_size`.
    """
    return max(image_size, round(config.max_size * image_size / config.image_size))


def _apply_geometric(function: Callable[[Any], Any], scene: Scene) -> Scene:
    """Return the scene after applying a geometric v2 function of torchvision to its image and its boxes."""
    boxes = tv_tensors.BoundingBoxes(scene.boxes_G4, format="XYXY", canvas_size=(scene.image.height, scene.image.width))
    return replace(scene, image=function(scene.image), boxes_G4=function(boxes).as_subclass(torch.Tensor))


def _uniform(count: int, generator: Generator) -> list[float]:
    """Return random numbers, uniform in [0, 1). In float32, rounding could give 1."""
    numbers: list[float] = torch.rand(count, generator=generator, dtype=torch.float64).tolist()
    return numbers
