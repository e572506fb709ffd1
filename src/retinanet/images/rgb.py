"""Convert decoded images of any mode to upright 8-bit RGB.

Shape suffixes: H height, W width; C channels.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from retinanet.images.source import DECODER_ERRORS, ImageError
from retinanet.pixel_values import FULL_DEPTH, has_wide_colour, to_8_bits, wide_colour_values

_EXIF_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition that turns an image of each EXIF orientation upright (EXIF 2.32, tag 0x0112)."""


class Decoded(NamedTuple):
    """An image as upright RGB, its largest value if it has 16 bits per channel, and whether its file holds more."""

    image: Image.Image
    largest: int | None = None
    is_first_of_several: bool = False


def array_to_rgb(array: npt.NDArray[Any], bit_depth: int) -> Decoded:
    """Return an array HxW, HxWx1, HxWx3 RGB or HxWx4 RGBA of uint8 or uint16 as RGB. Raises `ImageError`."""
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in {2, 3} or channels not in {1, 3, 4} or not array.size:
        raise ImageError(f"expected an array HxW, HxWx1, HxWx3 RGB or HxWx4 RGBA, found shape {array.shape}")
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise ImageError(
            f"expected an array of uint8 or uint16, found {array.dtype}. Convert the pixels first, for example with "
            "image.astype(numpy.uint8)"
        )
    largest = None
    if array.dtype.itemsize == 2:
        largest = int(array[..., :3].max() if channels == 4 else array.max())
        array = to_8_bits(array, bit_depth)
    if array.ndim == 3 and channels == 1:
        array = array[:, :, 0]
    rgb = image_to_rgb(Image.fromarray(np.ascontiguousarray(array)), "array", FULL_DEPTH).image
    return Decoded(rgb, largest)


def image_to_rgb(image: Image.Image, name: str, bit_depth: int) -> Decoded:
    """Return an image as upright RGB. May raise any of `DECODER_ERRORS`."""
    rgb, largest, _ = stored_rgb(image, name, bit_depth)
    # The orientation is read after load(), which turns a TIFF upright itself.
    return Decoded(turn_upright(rgb, read_orientation(image)), largest)


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return an image of an EXIF orientation as a viewer shows it."""
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
        image.info = {}  # otherwise the next decode() would apply the orientation again
    return image


def stored_rgb(image: Image.Image, name: str, bit_depth: int) -> Decoded:
    """Return an image as RGB in its stored orientation."""
    largest = None
    if has_wide_colour(image):
        image, largest, _ = _reduced_colour(image, bit_depth)
    image.load()
    if image.mode.startswith(("I", "F")):
        values_HW = _grey_values(image, name)
        largest = int(values_HW.max())
        reduced_HW = to_8_bits(values_HW, bit_depth)
        if isinstance(transparent := image.info.get("transparency"), int):  # PNG: one grey value is transparent
            reduced_HW = np.where(values_HW == transparent, np.uint8(255), reduced_HW)
        image = Image.fromarray(reduced_HW)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return Decoded(image, largest)


def _reduced_colour(image: Image.Image, bit_depth: int) -> Decoded:
    """Return an image with 16 bits per channel as 8 bits per channel, and the largest value of its colours."""
    transparent = image.info.get("transparency")  # PNG: one colour is transparent
    if (bit_depth or FULL_DEPTH) == FULL_DEPTH and transparent is None:
        image.load()  # Pillow keeps the high byte of each value
        bands = image.getextrema()[: 1 if image.mode == "LA" else 3]
        return Decoded(image, int(max(band[1] for band in bands)) << 8 | 0xFF)  # type: ignore[index]
    values_HWC = wide_colour_values(image)
    colours = 1 if values_HWC.shape[2] == 2 else 3
    reduced_HWC = to_8_bits(values_HWC, FULL_DEPTH)  # transparency is not scaled
    reduced_HWC[..., :colours] = to_8_bits(values_HWC[..., :colours], bit_depth)
    if isinstance(transparent, tuple):
        reduced_HWC[(values_HWC == transparent).all(axis=2)] = 255
    return Decoded(Image.fromarray(reduced_HWC, mode=image.mode), int(values_HWC[..., :colours].max()))


def _grey_values(image: Image.Image, name: str) -> npt.NDArray[Any]:
    """Return the values of 16-bit grey. Raise `ImageError` for wider values, which have no defined range."""
    values_HW = np.asarray(image)
    if values_HW.dtype.kind == "f" or values_HW.min() < 0 or values_HW.max() > 0xFFFF:
        raise ImageError(
            f"{name}: expected 8 or 16 bits per channel, found {values_HW.dtype} from {values_HW.min()} to "
            f"{values_HW.max()}, which has no defined black and white. Convert it to 8 or 16 bits first"
        )
    return values_HW


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 (upright) if it is missing or the EXIF block is broken."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except DECODER_ERRORS:
        return 1
    return orientation if isinstance(orientation, int) else 1
