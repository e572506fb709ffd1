"""Values of images with 16 bits per channel: their range, and their reduction to 8 bits.

Cameras, X-ray and thermal sensors often store 10, 12 or 14 bits in 16. Without scaling, such an image is nearly black.
Shape suffixes: H height, W width; C channels.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

FULL_DEPTH: Final = 16
"""Number of bits of values that use the whole range of 16 bits."""
_DEPTHS: Final = (8, 10, 12, 14)
"""Numbers of bits that are recognised by the largest value of the data."""
_LOW_BYTE: Final = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
"""Byte order that makes Pillow, which keeps the high byte of 16-bit colour, read the low byte instead."""


class ValueRange(NamedTuple):
    """The 16-bit images of a dataset, and their largest value."""

    images: int
    """Number of images with 16 bits per channel."""
    largest: int
    """Largest value of these images."""

    @property
    def bit_depth(self) -> int:
        """Smallest of 8, 10, 12, 14 and 16 bits that holds the largest value."""
        return recognise_depth(self.largest)

    @classmethod
    def of(cls, largest_values: Iterable[int | None]) -> ValueRange | None:
        """Return the range of images by their largest values. None stands for an image or dataset of 8 bits."""
        values = [value for value in largest_values if value is not None]
        return cls(len(values), max(values)) if values else None

    @classmethod
    def join(cls, ranges: Iterable[ValueRange | None]) -> ValueRange | None:
        """Return the range of several datasets together."""
        present = [one for one in ranges if one is not None]
        return cls(sum(one.images for one in present), max(one.largest for one in present)) if present else None

    def describe(self) -> str:
        """Return the number of images, their largest value and the bits that hold it."""
        images = "1 image has" if self.images == 1 else f"{self.images:,} images have"
        return (
            f"{images} 16 bits per channel, and the largest value is {self.largest:,}: the values use "
            f"{self.bit_depth} of 16 bits"
        )


def recognise_depth(largest: int) -> int:
    """Return the smallest of 8, 10, 12, 14 and 16 bits that holds a value."""
    return next((bits for bits in _DEPTHS if largest < 1 << bits), FULL_DEPTH)


def to_8_bits(values: npt.NDArray[Any], bit_depth: int) -> npt.NDArray[np.uint8]:
    """Return values of `bit_depth` bits as uint8: 2^bit_depth - 1 and above become 255.

    Args:
        values: integers from 0 to 65535.
        bit_depth: 8 to 16; 0: 16.
    """
    shift = (bit_depth or FULL_DEPTH) - 8
    reduced: npt.NDArray[np.uint8] = np.minimum(values >> shift, 255).astype(np.uint8)
    return reduced


def has_wide_colour(image: Image.Image) -> bool:
    """Return whether Pillow will reduce an opened image with 16 bits per channel to 8 bits while it is loaded."""
    return ";16" in _raw_mode(image) and not image.mode.startswith("I")


def wide_colour_values(image: Image.Image) -> npt.NDArray[np.uint16]:
    """Return the 16-bit values HWC of an image for which `has_wide_colour` is true. Loads the image.

    Pillow returns the high byte of each value. The low byte is read from a second decoding with swapped bytes.
    """
    low_HWC: npt.NDArray[Any] | int
    raw, file = _raw_mode(image), image.fp  # type: ignore[attr-defined]
    start = file.tell()
    file.seek(0)
    content = io.BytesIO(file.read())
    file.seek(start)
    with Image.open(content, formats=[image.format or ""]) as other:
        swapped = raw[:-1] + _LOW_BYTE.get(raw[-1], "")
        other.tile = [tile._replace(args=_with_raw_mode(tile.args, swapped)) for tile in other.tile]
        try:
            low_HWC = np.asarray(other)
        except (ValueError, OSError):  # Pillow has no such mode, for example for grey with transparency
            low_HWC = 0
    values_HWC: npt.NDArray[np.uint16] = ((np.asarray(image).astype(np.uint16) << 8) | low_HWC).astype(np.uint16)
    return values_HWC


def _raw_mode(image: Image.Image) -> str:
    tile = getattr(image, "tile", None)
    args = tile[0][3] if tile else ""
    mode = args[0] if isinstance(args, tuple) and args else args
    return mode if isinstance(mode, str) else ""


def _with_raw_mode(args: Any, mode: str) -> Any:
    return (mode, *args[1:]) if isinstance(args, tuple) else mode
