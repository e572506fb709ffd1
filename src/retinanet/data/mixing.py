"""Mosaic and mixup: parts of several training images in one image, side by side or on top of each other.

Boxes are xyxy, pixels of a scene. The ratio of a scene is the size of its pixels in pixels of the resulting image, if
both images are resized for the network. An object therefore has the size that it has without mosaic or mixup, times a
factor that each function states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import torch
from PIL import Image

from retinanet import images
from retinanet.data.transforms import Scene, visible_objects

if TYPE_CHECKING:
    import numpy as np

CENTRE: Final = (0.3, 0.7)
"""Range of the corner that the four parts of a mosaic share, as a fraction of the image's width and height."""
MOSAIC_SCALES: Final = (0.5, 1.0)
"""Range of the random factor on the size of an image in a mosaic. It is larger if the image would not fill its part."""
MIXUP_BETA: Final = 8.0
"""Both parameters of the beta distribution of the first image's weight in mixup: mean 0.5, standard deviation 0.12.

The paper (Zhang et al., arXiv 1902.04103) uses 1.5, but weights the loss of each image with its share. Here every
object counts fully, so every object must be visible.
"""


def mosaic(parts: Sequence[tuple[Scene, float]], *, size: tuple[int, int], rng: np.random.Generator) -> Scene:
    """Return an image of 2 x 2 parts that share a random corner, each a random part of one image in random order.

    Boxes are clipped. An object is ignored (a crowd region) if less than `MIN_VISIBLE_SHARE` of it is visible.
    Source: Bochkovskiy et al., arXiv 2004.10934, section 3.3.

    Args:
        parts: four scenes, each with its ratio.
        size: (width, height) of the result, pixels, each at least 2.
        rng: source of all random numbers.
    """
    (width, height), (x_share, y_share) = size, rng.uniform(CENTRE[0], CENTRE[1], size=2)
    x, y = min(max(1, round(width * x_share)), width - 1), min(max(1, round(height * y_share)), height - 1)
    corners = ((0, 0), (x, 0), (0, y), (x, y))
    sizes = ((x, y), (width - x, y), (x, height - y), (width - x, height - y))
    image = Image.new("RGB", size)
    objects = []
    for corner, part_size, number in zip(corners, sizes, rng.permutation(4), strict=True):
        source, ratio = parts[number]
        part = _random_part(source, ratio, part_size, rng)
        image.paste(part.image, corner)
        objects.append(_moved(part, corner))
    return _joined(image, objects)


def mixup(scene: Scene, other: Scene, *, ratio: float, rng: np.random.Generator) -> Scene:
    """Return the weighted mean of two images, with the objects of both.

    The other image keeps its size. It lies at a random place, and is cut to the size of the first image. Pixels that
    only the first image covers do not change. An object is ignored (a crowd region) if the cut leaves less than
    `MIN_VISIBLE_SHARE` of it. Source: Zhang et al., arXiv 1902.04103, section 3.1.

    Args:
        scene: first image.
        other: second image.
        ratio: ratio of the second image.
        rng: source of all random numbers.
    """
    weight = rng.beta(MIXUP_BETA, MIXUP_BETA)
    (width, height), size = scene.image.size, other.image.size
    other = _resized(other, (max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio))))
    common = (min(width, other.image.width), min(height, other.image.height))
    part = _cropped(other, _random_corner(other.image.size, common, rng), common)
    x, y = _random_corner(scene.image.size, common, rng)
    under = scene.image.crop((x, y, x + common[0], y + common[1]))
    image = scene.image.copy()
    image.paste(Image.blend(part.image, under, weight), (x, y))
    return _joined(image, [scene, _moved(part, (x, y))])


def _random_part(scene: Scene, ratio: float, size: tuple[int, int], rng: np.random.Generator) -> Scene:
    """Return a random part of a scene that has `size` after resizing."""
    width, height = scene.image.width * ratio, scene.image.height * ratio
    fill = max(size[0] / width, size[1] / height)
    low, high = MOSAIC_SCALES
    scale = rng.uniform(max(fill, low), max(fill, high))
    resized = _resized(scene, (max(size[0], round(width * scale)), max(size[1], round(height * scale))))
    return _cropped(resized, _random_corner(resized.image.size, size, rng), size)


def _random_corner(outer: tuple[int, int], inner: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """Return the top left corner of a random part of size `inner` in an image of size `outer`."""
    x, y = rng.integers(0, [outer[0] - inner[0] + 1, outer[1] - inner[1] + 1]).tolist()
    return x, y


def _resized(scene: Scene, size: tuple[int, int]) -> Scene:
    scale = torch.tensor([size[0] / scene.image.width, size[1] / scene.image.height], dtype=torch.float64)
    return replace(scene, image=images.resize(scene.image, size), boxes_G4=scene.boxes_G4 * scale.repeat(2))


def _cropped(scene: Scene, corner: tuple[int, int], size: tuple[int, int]) -> Scene:
    """Return the part of a scene with this top left corner and this size."""
    window = (*corner, corner[0] + size[0], corner[1] + size[1])
    part = visible_objects(scene, window)
    return _moved(replace(part, image=scene.image.crop(window)), (-corner[0], -corner[1]))


def _moved(scene: Scene, shift: tuple[int, int]) -> Scene:
    """Return the scene with its boxes moved by `shift` pixels."""
    return replace(scene, boxes_G4=scene.boxes_G4 + torch.tensor(shift * 2, dtype=torch.float64))


def _joined(image: Image.Image, scenes: Sequence[Scene]) -> Scene:
    """Return an image with the objects of several scenes."""
    return Scene(
        image=image,
        boxes_G4=torch.cat([scene.boxes_G4 for scene in scenes]),
        labels_G=torch.cat([scene.labels_G for scene in scenes]),
        crowd_G=torch.cat([scene.crowd_G for scene in scenes]),
    )
