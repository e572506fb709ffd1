"""Decode images, whole or resized, and read their sizes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from retinanet.images.resizing import Scaled, resize, resized_size
from retinanet.images.rgb import Decoded, array_to_rgb, image_to_rgb, read_orientation, stored_rgb, turn_upright
from retinanet.images.source import (
    DECODER_ERRORS,
    Source,
    decoding_error,
    is_first_of_several,
    open_source,
    source_name,
)
from retinanet.images.windows import MAX_PIXELS_AT_ONCE, Windows, open_large
from retinanet.pixel_values import FULL_DEPTH, recognise_depth


class Verified(NamedTuple):
    """Result of decoding all pixels of an image."""

    size: tuple[int, int]
    """Width and height in pixels, after EXIF rotation."""
    largest: int | None
    """Largest value before the reduction to 8 bits, if the image has 16 bits per channel."""
    is_first_of_several: bool = False
    """Whether the file holds further images, see `is_first_of_several`."""


def decode(source: Source, *, bit_depth: int = FULL_DEPTH) -> Image.Image:
    """Return any image as upright 8-bit RGB.

    - EXIF orientation is applied: width and height are those that a viewer shows.
    - 16-bit values are reduced to the highest 8 of their `bit_depth` bits, not stretched to the range of the image:
      equal intensities give equal pixels in all images. Images of 8 bits do not change.
    - Transparent pixels are blended with white, as in a viewer. Dropping the transparency would reveal hidden colours,
      such as black behind black line art.
    - An animation gives its first frame. The suffix of a file is ignored.

    Args:
        source: see `Source`. An array is HxW, HxWx1, HxWx3 RGB or HxWx4 RGBA, uint8 or uint16.
        bit_depth: number of bits that 16-bit images use, 8 to 16: the value 2^bit_depth - 1 is white; 0: 16.

    Raises:
        ImageError: the source is missing, empty, truncated or not an image, or has more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    return _decode(source, bit_depth).image


def decode_for_display(source: Source) -> Image.Image:
    """Return any image as upright 8-bit RGB for people, see `decode`.

    The `bit_depth` of a 16-bit image is recognised by its own largest value, so that no image is nearly black.

    Raises:
        ImageError: see `decode`.
    """
    image, largest, _ = _decode(source, FULL_DEPTH)
    bit_depth = FULL_DEPTH if largest is None else recognise_depth(largest)
    return image if bit_depth == FULL_DEPTH else decode(source, bit_depth=bit_depth)


def _decode(source: Source, bit_depth: int) -> Decoded:
    if isinstance(source, np.ndarray):
        return array_to_rgb(source, bit_depth)
    name = source_name(source)
    try:
        if isinstance(source, Image.Image):
            return image_to_rgb(source, name, bit_depth)
        with open_source(source) as image:
            several = is_first_of_several(image)
            return image_to_rgb(image, name, bit_depth)._replace(is_first_of_several=several)
    except UnidentifiedImageError as error:
        windows = open_large(source, bit_depth) if isinstance(source, str | Path) else None
        if windows is None or windows.size[0] * windows.size[1] > MAX_PIXELS_AT_ONCE:
            raise decoding_error(error, source, name) from error
        with windows:
            rgb = windows.crop((0, 0, *windows.size))
            return Decoded(rgb, windows.largest, windows.is_first_of_several)
    except DECODER_ERRORS as error:
        raise decoding_error(error, source, name) from error


def decode_for(source: Source, *, image_size: int, max_size: int, bit_depth: int = FULL_DEPTH) -> Scaled:
    """Decode and resize an image as `decode`, `resized_size` and `resize` do, in less time.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that is at least the size of the result. This takes half the
    time and changes pixels by less than one of 255 levels on average (51 dB or more on COCO images). An image of more
    than `MAX_PIXELS_AT_ONCE` pixels is read by windows.

    Raises:
        ImageError: see `decode`.
    """
    if isinstance(source, str | Path | bytes):
        if (windows := open_large(source, bit_depth)) is not None:
            with windows:
                size = resized_size(*windows.size, image_size=image_size, max_size=max_size)
                return Scaled(windows.reduced(size), *windows.size, windows.largest, windows.is_first_of_several)
        try:
            with open_source(source) as image:
                if image.format in {"JPEG", "MPO"}:
                    return _reduced_jpeg(image, source_name(source), image_size=image_size, max_size=max_size)
                several = is_first_of_several(image)
                decoded, largest, _ = image_to_rgb(image, source_name(source), bit_depth)
        except DECODER_ERRORS as error:
            raise decoding_error(error, source, source_name(source)) from error
    else:
        decoded, largest, several = _decode(source, bit_depth)
    size = resized_size(*decoded.size, image_size=image_size, max_size=max_size)
    return Scaled(resize(decoded, size), *decoded.size, largest, several)


class ReducedJpeg(NamedTuple):
    """A JPEG that was decoded at 1/`scale` of its size, in its stored orientation. `resized` completes `decode_for`."""

    image: Image.Image
    """RGB, at 1/`scale` of the size, not turned upright."""
    width: int
    """Stored width of the file."""
    height: int
    """Stored height of the file."""
    scale: int
    orientation: int
    """EXIF orientation."""

    def resized(self, *, image_size: int, max_size: int) -> Scaled:
        """Return the upright image, resized."""
        rgb, width, height, scale, orientation = self
        size = resized_size(width, height, image_size=image_size, max_size=max_size)
        if scale > 1:
            rgb = rgb.resize(size, Image.Resampling.BILINEAR, box=(0, 0, width / scale, height / scale))
        if orientation in {5, 6, 7, 8}:
            width, height, size = height, width, size[::-1]
        return Scaled(resize(turn_upright(rgb, orientation), size), width, height)


def jpeg_scale(width: int, height: int, size: tuple[int, int]) -> int:
    """Return the scale, 1, 2, 4 or 8, at which `decode_for` decodes a JPEG that is resized to `size` (by Pillow)."""
    least = min(width // size[0], height // size[1])
    return next((scale for scale in (8, 4, 2) if least >= scale), 1)


def decode_jpeg(data: bytes, scale: int) -> ReducedJpeg | None:
    """Return a JPEG decoded at a scale of `jpeg_scale`, or None if the bytes are no JPEG or have fewer pixels.

    Raises:
        ImageError: see `decode`.
    """
    try:
        with open_source(data) as image:
            if image.format not in {"JPEG", "MPO"} or min(image.size) < scale:
                return None
            return _draft_jpeg(image, source_name(data), (image.width // scale, image.height // scale))
    except DECODER_ERRORS as error:
        raise decoding_error(error, data, source_name(data)) from error


def _reduced_jpeg(image: Image.Image, name: str, *, image_size: int, max_size: int) -> Scaled:
    size = resized_size(*image.size, image_size=image_size, max_size=max_size)
    return _draft_jpeg(image, name, size).resized(image_size=image_size, max_size=max_size)


def _draft_jpeg(image: Image.Image, name: str, size: tuple[int, int]) -> ReducedJpeg:
    """Return an opened JPEG decoded at the smallest scale that is at least `size`."""
    width, height = image.size
    image.draft("RGB", size)
    # A scaled JPEG is rounded up to whole pixels: the last one may be covered only in part.
    scale = next((s for s in (1, 2, 4, 8) if image.size == (-(-width // s), -(-height // s))), 1)
    rgb = stored_rgb(image, name, FULL_DEPTH).image
    return ReducedJpeg(rgb, width, height, scale, read_orientation(image))


def open_windows(source: Source, *, bit_depth: int = FULL_DEPTH) -> Windows:
    """Open an image to crop parts of it, in a `with` block. An image above `MAX_PIXELS_AT_ONCE` stays on the disk.

    Raises:
        ImageError: see `decode`.
    """
    large = open_large(source, bit_depth) if isinstance(source, str | Path | bytes) else None
    return Windows(*_decode(source, bit_depth)) if large is None else large


def verify(source: Source) -> Verified:
    """Decode all pixels of an image and return its size, its largest value and whether its file holds more images.

    Raises:
        ImageError: see `decode`.
    """
    with open_windows(source) as image:
        image.reduced((1, 1))
        return Verified(image.size, image.largest, image.is_first_of_several)


def read_size(source: str | Path) -> tuple[int, int]:
    """Return (width, height) of a file after EXIF rotation, from its header alone.

    Raises:
        ImageError: the file is missing or not an image.
    """
    try:
        if (windows := open_large(source)) is not None:
            with windows:
                return windows.size
        with open_source(source) as image:
            # Pillow swaps the size of a turned TIFF: in some versions when opening, in others when loading.
            width, height = (image.tag_v2[256], image.tag_v2[257]) if isinstance(image, TiffImageFile) else image.size
            return (height, width) if read_orientation(image) in {5, 6, 7, 8} else (width, height)
    except DECODER_ERRORS as error:
        raise decoding_error(error, source, source_name(source)) from error
