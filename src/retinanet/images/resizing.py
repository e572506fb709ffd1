"""Sizes of resized images, and the tiles of large images."""

from __future__ import annotations

import math
from typing import NamedTuple

from PIL import Image


class Frame(NamedTuple):
    """Size of an image in pixels, before and after resizing; it maps boxes between the two."""

    width: int
    """Original width, after EXIF rotation."""
    height: int
    """Original height, after EXIF rotation."""
    resized_width: int
    """Width in the input of the network, without padding."""
    resized_height: int
    """Height in the input of the network, without padding."""


class Scaled(NamedTuple):
    """A resized image, its original size, and the largest value of its file."""

    image: Image.Image
    """Upright RGB, resized."""
    width: int
    """Original width, after EXIF rotation."""
    height: int
    """Original height, after EXIF rotation."""
    largest: int | None = None
    """Largest value before the reduction to 8 bits, if the image has 16 bits per channel."""
    is_first_of_several: bool = False
    """Whether the file holds further images: pages of a TIFF, frames of an animation."""


def resized_size(width: int, height: int, *, image_size: int, max_size: int) -> tuple[int, int]:
    """Return (width, height) with the shorter side `image_size`, unless the longer side would exceed `max_size`.

    The aspect ratio is kept to the nearest pixel; no side falls below 1.
    """
    scale = min(image_size / min(width, height), max_size / max(width, height))
    return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))


def tiles(width: int, height: int, *, tile: int, overlap: float) -> list[tuple[int, int, int, int]]:
    """Return the tiles that cover an image, xyxy in its pixels, row by row.

    A tile is `tile` pixels wide and high, or as wide or high as a smaller image. Tiles are spread evenly: neighbours
    overlap by at least `overlap` of a side.
    """

    def starts(side: int) -> list[int]:
        if side <= tile:
            return [0]
        count = math.ceil((side - tile) / max(1, math.floor(tile * (1 - overlap)))) + 1
        return [round(i * (side - tile) / (count - 1)) for i in range(count)]

    return [(x, y, min(x + tile, width), min(y + tile, height)) for y in starts(height) for x in starts(width)]


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize an RGB image to `size` (width, height): bilinear, with antialiasing when it shrinks."""
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
