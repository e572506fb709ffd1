"""Normalise and pad decoded images to the input of the network.

Shape suffixes: N batch, H height, W width; 3 is RGB.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from retinanet.images.resizing import Frame, Scaled, resize, resized_size

P = TypeVar("P", np.float32, np.uint8)


class InputSettings(Protocol):
    """Settings that turn an image into the input of the network: the fields of `config.ImageConfig`."""

    @property
    def image_size(self) -> int:
        """Shorter side of the resized image in pixels, unless the longer side would exceed `max_size`."""

    @property
    def max_size(self) -> int:
        """Maximum longer side of the resized image in pixels."""

    @property
    def size_divisor(self) -> int:
        """Divisor of the padded height and width: batches are padded at the right and bottom, in pixels."""

    @property
    def image_mean(self) -> tuple[float, float, float]:
        """Mean of each channel, RGB in [0, 1]."""

    @property
    def image_std(self) -> tuple[float, float, float]:
        """Standard deviation of each channel, RGB in [0, 1]."""


def normalise(
    image: Image.Image | npt.NDArray[np.uint8], *, mean: Sequence[float], std: Sequence[float]
) -> npt.NDArray[np.float32]:
    """Return (x / 255 - mean) / std, channel by channel.

    Args:
        image: RGB, a Pillow image or HW3 uint8.
        mean: mean of each channel, in [0, 1].
        std: standard deviation of each channel, in [0, 1].

    Returns:
        3HW float32.
    """
    pixels_HW3 = np.asarray(image)
    if pixels_HW3.ndim != 3 or pixels_HW3.shape[2] != 3 or pixels_HW3.dtype != np.uint8:
        raise ValueError(f"expected RGB pixels HW3 uint8, found {pixels_HW3.shape} {pixels_HW3.dtype}")
    out_3HW = np.empty((3, *pixels_HW3.shape[:2]), np.float32)
    pixels_3HW = np.ascontiguousarray(pixels_HW3.transpose(2, 0, 1))  # NumPy is slow on strided arrays
    for c in range(3):
        # one multiply-add: x * 1/(255 std) - mean/std
        np.multiply(pixels_3HW[c], np.float32(1 / (255 * std[c])), out=out_3HW[c])
        out_3HW[c] -= np.float32(mean[c] / std[c])
    return out_3HW


def pad(pixels: Sequence[npt.NDArray[P]], *, divisor: int) -> npt.NDArray[P]:
    """Stack 3HW images to N3HW, padded with zeros (the mean colour after `normalise`) at the right and bottom.

    H and W are the largest of the batch, rounded up to a multiple of `divisor`.
    """
    if not pixels:
        raise ValueError("expected at least one image, found none")
    H, W = (-(-max(p.shape[axis] for p in pixels) // divisor) * divisor for axis in (1, 2))
    out_N3HW = np.zeros((len(pixels), 3, H, W), pixels[0].dtype)
    for out_3HW, p in zip(out_N3HW, pixels, strict=True):
        out_3HW[:, : p.shape[1], : p.shape[2]] = p
    return out_N3HW


def padded_size(width: int, height: int, *, divisor: int) -> tuple[int, int]:
    """Return the (height, width) of an image that is padded alone, by `pad`, to multiples of `divisor`."""
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def group_equal(shapes: Sequence[Hashable], *, most: int | None = None) -> list[list[int]]:
    """Return the indices of equal shapes as groups, in the order of their first index.

    Args:
        shapes: shape of each image.
        most: largest number of indices in a group; None: no limit.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, shape in enumerate(shapes):
        groups.setdefault(shape, []).append(index)
    return [
        group[i : i + (most or len(group))]
        for group in groups.values()
        for i in range(0, len(group), most or len(group))
    ]


def prepare(
    images: Sequence[Image.Image | Scaled], config: InputSettings
) -> tuple[npt.NDArray[np.float32], list[Frame]]:
    """Resize, normalise and pad decoded images. Return the N3HW batch and the frame of each image."""
    resized, frames = _resize_all(images, config)
    pixels = [normalise(image, mean=config.image_mean, std=config.image_std) for image in resized]
    return pad(pixels, divisor=config.size_divisor), frames


def prepare_pixels(
    images: Sequence[Image.Image | Scaled], config: InputSettings
) -> tuple[npt.NDArray[np.uint8], list[Frame]]:
    """Resize and pad decoded images without normalising. Return the N3HW uint8 batch and the frame of each image."""
    resized, frames = _resize_all(images, config)
    return pad([np.asarray(image).transpose(2, 0, 1) for image in resized], divisor=config.size_divisor), frames


def _resize_all(images: Sequence[Image.Image | Scaled], config: InputSettings) -> tuple[list[Image.Image], list[Frame]]:
    frames, resized = [], []
    for source in images:
        image, width, height = source[:3] if isinstance(source, Scaled) else (source, *source.size)
        size = resized_size(width, height, image_size=config.image_size, max_size=config.max_size)
        frames.append(Frame(width, height, *size))
        resized.append(resize(image, size))
    return resized, frames
