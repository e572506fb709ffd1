"""From a file to the network's input: decode, resize, normalise, pad. The only copy, used to train, predict and serve.

Needs numpy and Pillow, never torch. Shape suffixes: N batch, H, W; 3 is RGB.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from retinanet.config import ImageConfig

Source = str | Path | bytes | BinaryIO | np.ndarray | Image.Image
"""What `decode` reads: a path, the bytes of a file, an open file, an array or a Pillow picture."""

_DECODER_ERRORS: Final = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
)
"""What Pillow's decoders raise for files that are broken in one way or another."""

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
"""What turns a picture with each EXIF orientation upright (EXIF 2.32, tag 0x0112)."""


class ImageError(ValueError):
    """A picture that cannot be decoded; the message names it and says why."""


class Frame(NamedTuple):
    """The size of a picture before and after resizing, pixels; boxes are carried between the two by it."""

    width: int
    """Original width, after EXIF rotation."""
    height: int
    """Original height, after EXIF rotation."""
    resized_width: int
    """Width within the network's input, without the padding."""
    resized_height: int
    """Height within the network's input, without the padding."""


def decode(source: Source) -> Image.Image:
    """Return any picture as upright 8-bit RGB.

    - EXIF orientation is applied, so width and height are those a viewer shows.
    - Of 16-bit values the high byte is kept, a fixed rule and not a stretch to the picture's own range: the same
      intensity must give the same pixel in every picture. Pillow does the same to 16-bit colour.
    - Transparency is laid over white, as a page or a viewer shows it; to drop it would uncover colours nobody has
      seen, most often black line art on black.
    - Of an animation the first frame is taken. The suffix of a file plays no part.

    Args:
        source: see `Source`. An array is HxW, HxWx1, HxWx3 RGB or HxWx4 RGBA, uint8 or uint16.

    Raises:
        ImageError: missing, empty, truncated, not a picture, or too many pixels (`PIL.Image.MAX_IMAGE_PIXELS`).
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    name = _name(source)
    try:
        if isinstance(source, Image.Image):
            return _to_rgb(source, name)
        with _open(source) as image:
            return _to_rgb(image, name)
    except _DECODER_ERRORS as error:
        raise _explain(error, source, name) from error


def read_size(source: str | Path) -> tuple[int, int]:
    """Return (width, height) of a file after EXIF rotation, from its header alone.

    Raises:
        ImageError: missing, or not a picture.
    """
    try:
        with _open(source) as image:
            turned = _orientation(image) in {5, 6, 7, 8}
            return (image.height, image.width) if turned else (image.width, image.height)
    except _DECODER_ERRORS as error:
        raise _explain(error, source, _name(source)) from error


def resized_size(width: int, height: int, *, image_size: int, max_size: int) -> tuple[int, int]:
    """Return (width, height) with the shorter side `image_size`, unless the longer would pass `max_size`.

    The aspect ratio is kept to the nearest pixel; no side falls below 1.
    """
    scale = min(image_size / min(width, height), max_size / max(width, height))
    return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))


def tiles(width: int, height: int, *, tile: int, overlap: float) -> list[tuple[int, int, int, int]]:
    """Return the tiles that cover a picture, xyxy in its pixels, row by row.

    All are `tile` wide and high, or as the picture where that is smaller; they are spread evenly, so that neighbours
    share `overlap` of a side at least.
    """

    def starts(side: int) -> list[int]:
        if side <= tile:
            return [0]
        count = math.ceil((side - tile) / max(1, math.floor(tile * (1 - overlap)))) + 1
        return [round(i * (side - tile) / (count - 1)) for i in range(count)]

    return [(x, y, min(x + tile, width), min(y + tile, height)) for y in starts(height) for x in starts(width)]


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize an RGB picture to `size` (width, height): bilinear, with antialiasing where it shrinks."""
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def normalise(
    image: Image.Image | npt.NDArray[np.uint8], *, mean: Sequence[float], std: Sequence[float]
) -> npt.NDArray[np.float32]:
    """Return (x / 255 - mean) / std, channel by channel.

    Args:
        image: RGB, a Pillow picture or HW3 uint8.
        mean: of each channel, in [0, 1].
        std: of each channel, in [0, 1].

    Returns:
        3HW float32.
    """
    pixels_HW3 = np.asarray(image)
    if pixels_HW3.ndim != 3 or pixels_HW3.shape[2] != 3 or pixels_HW3.dtype != np.uint8:
        raise ValueError(f"expected RGB pixels HW3 uint8, found {pixels_HW3.shape} {pixels_HW3.dtype}")
    out_3HW = np.empty((3, *pixels_HW3.shape[:2]), np.float32)
    for c in range(3):
        # one multiply-add: x * 1/(255 std) - mean/std
        np.multiply(pixels_HW3[:, :, c], np.float32(1 / (255 * std[c])), out=out_3HW[c])
        out_3HW[c] -= np.float32(mean[c] / std[c])
    return out_3HW


def pad(pixels: Sequence[npt.NDArray[np.float32]], *, divisor: int) -> npt.NDArray[np.float32]:
    """Stack normalised 3HW pictures to N3HW, zeros (the mean colour) at the right and bottom.

    H and W are the largest of the batch, rounded up to a multiple of `divisor`.
    """
    if not pixels:
        raise ValueError("expected at least one picture, found none")
    H, W = (-(-max(p.shape[axis] for p in pixels) // divisor) * divisor for axis in (1, 2))
    out_N3HW = np.zeros((len(pixels), 3, H, W), np.float32)
    for out_3HW, p in zip(out_N3HW, pixels, strict=True):
        out_3HW[:, : p.shape[1], : p.shape[2]] = p
    return out_N3HW


def prepare(images: Sequence[Image.Image], config: ImageConfig) -> tuple[npt.NDArray[np.float32], list[Frame]]:
    """Resize, normalise and pad decoded pictures to one N3HW batch, with the frame of each."""
    frames, pixels = [], []
    for image in images:
        size = resized_size(*image.size, image_size=config.image_size, max_size=config.max_size)
        frames.append(Frame(*image.size, *size))
        pixels.append(normalise(resize(image, size), mean=config.image_mean, std=config.image_std))
    return pad(pixels, divisor=config.size_divisor), frames


def _open(source: str | Path | bytes | BinaryIO) -> Image.Image:
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)


def _name(source: object) -> str:
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, bytes):
        return f"{len(source)} bytes"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "picture")
    return str(getattr(source, "name", "file object"))


def _explain(error: Exception, source: object, name: str) -> ImageError:
    """Say what is wrong with a file in a user's words, where Pillow's would not do."""
    if isinstance(error, ImageError):
        return error
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{name}: no such file")
    if isinstance(error, IsADirectoryError):
        return ImageError(f"{name}: expected a picture, found a folder")
    if isinstance(source, str | Path) and Path(source).is_file() and not Path(source).stat().st_size:
        return ImageError(f"{name}: empty file")
    if isinstance(source, bytes) and not source:
        return ImageError("expected the bytes of a picture, found none")
    if isinstance(error, UnidentifiedImageError):
        return ImageError(f"{name}: not a picture in a format that can be read")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError(f"{name}: too many pixels to decode safely ({error})")
    return ImageError(f"{name}: cannot be decoded ({error})")


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in {2, 3} or channels not in {1, 3, 4} or not array.size:
        raise ImageError(f"expected an array HxW, HxWx1, HxWx3 RGB or HxWx4 RGBA, found shape {array.shape}")
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise ImageError(f"expected an array of uint8 or uint16, found {array.dtype}")
    if array.dtype.itemsize == 2:
        array = (array >> 8).astype(np.uint8)
    if array.ndim == 3 and channels == 1:
        array = array[:, :, 0]
    return _to_rgb(Image.fromarray(np.ascontiguousarray(array)), "array")


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Decode the pixels, bring them to RGB and upright. May raise any of `_DECODER_ERRORS`."""
    image.load()
    orientation = _orientation(image)  # after load(), which turns TIFF upright by itself
    if image.mode.startswith(("I", "F")):
        image = _sixteen_bits(image, name)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
        image.info = {}  # with the orientation still in there, the next decode() would turn it again
    return image


def _sixteen_bits(image: Image.Image, name: str) -> Image.Image:
    """Return the high byte of 16-bit grey. Wider numbers have no agreed range, so they are refused."""
    values_HW = np.asarray(image)
    if values_HW.dtype.kind == "f" or values_HW.min() < 0 or values_HW.max() > 0xFFFF:
        raise ImageError(
            f"{name}: expected 8 or 16 bits a channel, found {values_HW.dtype} from {values_HW.min()} to "
            f"{values_HW.max()}, whose black and white are not defined. Convert it to 8 or 16 bits first"
        )
    return Image.fromarray((values_HW >> 8).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) where there is none or the EXIF block itself is broken."""
    try:
        found = image.getexif().get(_EXIF_ORIENTATION, 1)
    except _DECODER_ERRORS:
        return 1
    return found if isinstance(found, int) else 1
