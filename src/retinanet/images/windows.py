"""Read parts of an image. rasterio (GDAL) reads large images window by window.

Shape suffixes: C channels, H height, W width.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from PIL import Image, UnidentifiedImageError

from retinanet.images.resizing import resize
from retinanet.images.rgb import array_to_rgb, read_orientation
from retinanet.images.source import DECODER_ERRORS, ImageError, is_tiff, open_source
from retinanet.pixel_values import FULL_DEPTH

MAX_PIXELS_AT_ONCE: Final = 64_000_000
"""Largest number of pixels that is decoded at once (200 MB). rasterio reads a larger image window by window."""
_STRIP_PIXELS: Final = 16_000_000
"""Number of pixels in one strip when an image of more than `MAX_PIXELS_AT_ONCE` pixels is reduced."""
_GDAL_OPTIONS: Final = {
    "GDAL_CACHEMAX": 256_000_000,  # bytes of decoded blocks in memory
    # Ignore files beside the image (.aux.xml, .ovr, .msk, .tfw), which could name other files.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": False,
}
_WINDOW_DRIVERS: Final = ("GTiff", "PNG", "JPEG", "BMP", "WEBP", "JP2OpenJPEG")
"""GDAL drivers in use. They read one file per image; GDAL's virtual formats can name other files and addresses."""
_MIN_FILE_SHARE: Final = 1 / 5000
"""Minimum file size per decoded byte of an image that is read by windows. Deflate packs at most 1,032 bytes into one,
so a file below this limit does not contain the pixels that its header announces."""
_MAX_BLOCK_BYTES: Final = 1_000_000_000
"""Maximum size in bytes of one stored block (tile or strip) of an image. A block is always decoded whole."""


class Windows:
    """A decoded image whose parts can be cropped.

    Args:
        image: upright RGB.
        largest: largest value of the decoded parts before the reduction to 8 bits; None for an image of 8 bits.
        is_first_of_several: whether the file holds further images.
    """

    def __init__(self, image: Image.Image, largest: int | None = None, is_first_of_several: bool = False) -> None:
        self.image = image
        self.size = image.size
        self.largest = largest
        self.is_first_of_several = is_first_of_several

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, if one is open."""

    def crop(self, window: tuple[int, int, int, int]) -> Image.Image:
        """Return the part of the image inside `window`: xyxy, image pixels."""
        return self.image.crop(window)

    def reduced(self, size: tuple[int, int]) -> Image.Image:
        """Return the whole image, resized to `size` (width, height)."""
        return resize(self.image, size)


class FileWindows(Windows):
    """An image that rasterio (GDAL) reads from its file window by window, see `Windows`."""

    def __init__(self, path: str, dataset: Any, env: Any, bit_depth: int) -> None:
        self.path = path
        self.bit_depth = bit_depth
        self.largest = None
        self.is_first_of_several = len(dataset.subdatasets) > 1  # pages of a TIFF, without overviews
        self.dataset = dataset
        self.env = env  # limits the cache of decoded blocks
        self.size = (dataset.width, dataset.height)

    def __exit__(self, *_: object) -> None:
        self.dataset.close()

    def crop(self, window: tuple[int, int, int, int]) -> Image.Image:
        """Return the part of the image inside `window`: xyxy, image pixels. Raises `ImageError`."""
        from rasterio.errors import RasterioError

        x1, y1, x2, y2 = window
        try:
            with self.env:
                pixels_CHW = self.dataset.read(window=((y1, y2), (x1, x2)))
        except (RasterioError, OSError) as error:
            raise ImageError(f"{self.path}: cannot be decoded ({error})") from error
        kinds = [kind.name for kind in self.dataset.colorinterp]
        if kinds[0] == "palette":
            colors = np.zeros((256, 4), np.uint8)
            for index, color in self.dataset.colormap(1).items():
                colors[index] = color
            return array_to_rgb(colors[pixels_CHW[0]], FULL_DEPTH).image
        if kinds[1:] == ["alpha"]:
            pixels_CHW = pixels_CHW[[0, 0, 0, 1]]
        elif len(pixels_CHW) not in {1, 3, 4} or (len(pixels_CHW) == 4 and kinds[3] != "alpha"):
            raise ImageError(
                f"{self.path}: expected grey, RGB or RGBA, found {len(kinds)} channels: {', '.join(kinds)}. "
                "Convert it first"
            )
        try:
            image, largest, _ = array_to_rgb(pixels_CHW.transpose(1, 2, 0), self.bit_depth)
        except ImageError as error:
            raise ImageError(f"{self.path}: {error}. Convert it first") from error
        if largest is not None:
            self.largest = max(self.largest or 0, largest)
        return image

    def reduced(self, size: tuple[int, int]) -> Image.Image:
        """Return the whole image, resized to `size` (width, height), strip by strip."""
        width, height = self.size
        factor = max(1, min(width // size[0], height // size[1], _STRIP_PIXELS // width))
        out = Image.new("RGB", (-(-width // factor), -(-height // factor)))
        rows = max(1, _STRIP_PIXELS // (width * factor)) * factor
        for y in range(0, height, rows):
            strip = self.crop((0, y, width, min(y + rows, height)))
            out.paste(strip.reduce(factor), (0, y // factor))
        return out.resize(size, Image.Resampling.BILINEAR, box=(0, 0, width / factor, height / factor))


def open_large(source: str | Path | bytes, bit_depth: int = FULL_DEPTH) -> FileWindows | None:
    """Return an image of more than `MAX_PIXELS_AT_ONCE` pixels, or a TIFF that Pillow cannot read, by windows.

    Any other source gives None.

    Raises:
        ImageError: rasterio cannot read the file.
    """
    if isinstance(source, bytes):
        return None
    try:
        with open_source(source) as image:
            pixels, orientation = image.width * image.height, read_orientation(image)
    except UnidentifiedImageError:
        if not is_tiff(source):
            return None
        pixels, orientation = MAX_PIXELS_AT_ONCE + 1, 1  # GDAL reads more kinds of TIFF than Pillow
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pixels, orientation = MAX_PIXELS_AT_ONCE + 1, 1
    except DECODER_ERRORS:
        return None  # decode() raises the error
    if pixels <= MAX_PIXELS_AT_ONCE:
        return None
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning, RasterioError
    except ImportError:
        return None  # decode() reads it whole, or names the package to install if it exceeds Pillow's limit
    if orientation != 1:
        return None
    for driver in _WINDOW_DRIVERS:
        try:
            with warnings.catch_warnings(), rasterio.Env(**_GDAL_OPTIONS) as env:
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                dataset = rasterio.open(source, driver=driver)
                _check_decoded_size(dataset, source)
                return FileWindows(str(source), dataset, env, bit_depth)
        except (RasterioError, OSError):
            continue
    raise ImageError(
        f"{source}: too many pixels to decode at once, and its format cannot be read by windows. "
        "Convert it to a tiled TIFF"
    )


def _check_decoded_size(dataset: Any, source: str | Path) -> None:
    """Raise `ImageError` if a file is too small for its announced pixels, or a block is too large to decode."""
    itemsize = max(np.dtype(name).itemsize for name in dataset.dtypes)
    pixels, size = dataset.width * dataset.height * dataset.count * itemsize, Path(source).stat().st_size
    block = max(h * w for h, w in dataset.block_shapes) * dataset.count * itemsize
    claim = f"{dataset.width}x{dataset.height} pixels"
    if size < pixels * _MIN_FILE_SHARE:
        dataset.close()
        raise ImageError(f"{source}: expected an image, found {size:,} bytes that claim to hold {claim}")
    if block > _MAX_BLOCK_BYTES:
        dataset.close()
        raise ImageError(f"{source}: too many pixels to decode at once: {claim}, stored in blocks of {block:,} bytes")
