"""From a file to the network's input: decode, resize, normalise, pad. The only copy, used to train, predict and serve.

Needs numpy and Pillow, never torch. Shape suffixes: N batch, H, W; 3 is RGB.
"""

from __future__ import annotations

import io
import math
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

Source = str | Path | bytes | BinaryIO | np.ndarray | Image.Image
"""What `decode` reads: a path, the bytes of a file, an open file, an array or a Pillow image."""

IMAGE_SUFFIXES: Final = frozenset(
    (
        *(".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".avif"),
        *(".ppm", ".pgm", ".pbm"),
    )
)
"""Suffixes of the image files that are taken from a folder, a glob or a list. A file that is named is taken whatever
its suffix."""
VIDEO_SUFFIXES: Final = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv"))
"""Suffixes of video files."""

_DECODER_ERRORS: Final = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError),
    *(struct.error, zlib.error, MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning),
)
"""What Pillow's decoders raise for files that are broken in one way or another: MemoryError too, for a row too long."""

LARGE: Final = 64_000_000
"""Pixels. What has more is read window by window, with rasterio: decoded whole it would take 200 MB and more."""
_STRIP: Final = 16_000_000
"""Pixels that are read at once of such an image."""
_GDAL: Final = {
    "GDAL_CACHEMAX": 256_000_000,  # bytes of decoded blocks that are kept
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no look at files beside the image:
    "GDAL_PAM_ENABLED": False,  # .aux.xml, .ovr, .msk, .tfw could name others
}
_WINDOW_DRIVERS: Final = ("GTiff", "PNG", "JPEG", "BMP", "WEBP", "JP2OpenJPEG")
"""Formats of one file each. Not GDAL's virtual ones: those name other files and addresses."""

_NOT_OPENED: Final = ("EPS", "WMF", "BUFR", "GRIB", "HDF5")
"""What Pillow would hand to another program (EPS to Ghostscript) or to a library that somebody else installed."""
_SMALLEST_SHARE: Final = 1 / 5000
"""Bytes of file for a byte of pixels, at least, in an image that is read by windows: deflate packs 1,032 into one, and
a header that claims more describes nothing that is in the file."""
_LARGEST_BLOCK: Final = 1_000_000_000
"""Bytes of the pieces (tiles, strips) that an image is stored in and decoded by; one cannot be read in part."""

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
"""What turns an image with each EXIF orientation upright (EXIF 2.32, tag 0x0112)."""
P = TypeVar("P", np.float32, np.uint8)


class InputSettings(Protocol):
    """How an image becomes the network's input: the fields of `config.ImageConfig`."""

    @property
    def image_size(self) -> int:
        """Shorter side of the resized image, pixels, unless the longer side would exceed `max_size`."""

    @property
    def max_size(self) -> int:
        """Longest side of the resized image, pixels."""

    @property
    def size_divisor(self) -> int:
        """Batches are padded at the right and bottom to multiples of this many pixels."""

    @property
    def image_mean(self) -> tuple[float, float, float]:
        """Mean of each channel, RGB in [0, 1]."""

    @property
    def image_std(self) -> tuple[float, float, float]:
        """Standard deviation of each channel, RGB in [0, 1]."""


class ImageError(ValueError):
    """An image that cannot be decoded; the message names it and says why."""


class Scaled(NamedTuple):
    """An image as the network sees it, and what it was."""

    image: Image.Image
    """Upright RGB, resized."""
    width: int
    """Original width, after EXIF rotation."""
    height: int
    """Original height, after EXIF rotation."""


class Frame(NamedTuple):
    """The size of an image before and after resizing, pixels; boxes are carried between the two by it."""

    width: int
    """Original width, after EXIF rotation."""
    height: int
    """Original height, after EXIF rotation."""
    resized_width: int
    """Width within the network's input, without the padding."""
    resized_height: int
    """Height within the network's input, without the padding."""


def decode(source: Source) -> Image.Image:
    """Return any image as upright 8-bit RGB.

    - EXIF orientation is applied, so width and height are those a viewer shows.
    - Of 16-bit values the high byte is kept, a fixed rule and not a stretch to the image's own range: the same
      intensity must give the same pixel in every image. Pillow does the same to 16-bit colour.
    - Transparency is laid over white, as a page or a viewer shows it; to drop it would uncover colours nobody has
      seen, most often black line art on black.
    - Of an animation the first frame is taken. The suffix of a file plays no part.

    Args:
        source: see `Source`. An array is HxW, HxWx1, HxWx3 RGB or HxWx4 RGBA, uint8 or uint16.

    Raises:
        ImageError: missing, empty, truncated, not an image, or too many pixels (`PIL.Image.MAX_IMAGE_PIXELS`).
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


def decode_for(source: Source, *, image_size: int, max_size: int) -> Scaled:
    """Decode and resize as `decode`, `resized_size` and `resize` do, and decode no more than that needs.

    A JPEG is decoded at a half, a quarter or an eighth where that is still as large as the result, which takes half the
    time; the result differs by less than one of 255 levels (51 dB and more on COCO's images). What has more than
    `LARGE` pixels is read by windows.

    Raises:
        ImageError: as `decode`.
    """
    if isinstance(source, str | Path | bytes):
        if (windows := _large(source)) is not None:
            with windows:
                size = resized_size(*windows.size, image_size=image_size, max_size=max_size)
                return Scaled(windows.reduced(size), *windows.size)
        try:
            with _open(source) as image:
                if image.format in {"JPEG", "MPO"}:
                    return _reduced_jpeg(image, _name(source), image_size=image_size, max_size=max_size)
        except _DECODER_ERRORS as error:
            raise _explain(error, source, _name(source)) from error
    image = decode(source)
    size = resized_size(*image.size, image_size=image_size, max_size=max_size)
    return Scaled(resize(image, size), *image.size)


def _reduced_jpeg(image: Image.Image, name: str, *, image_size: int, max_size: int) -> Scaled:
    width, height = image.size
    size = resized_size(width, height, image_size=image_size, max_size=max_size)
    image.draft("RGB", size)
    # A scaled JPEG is rounded up to whole pixels, of which the last may be shown in part only.
    scale = next((s for s in (1, 2, 4, 8) if image.size == (-(-width // s), -(-height // s))), 1)
    rgb = _plain_rgb(image, name)
    orientation = _orientation(image)
    if scale > 1:
        rgb = rgb.resize(size, Image.Resampling.BILINEAR, box=(0, 0, width / scale, height / scale))
    if orientation in {5, 6, 7, 8}:
        width, height, size = height, width, size[::-1]
    return Scaled(resize(_upright(rgb, orientation), size), width, height)


def open_windows(source: Source) -> Windows:
    """Open an image to crop parts out of it, in a `with` block: what is large stays on the disk.

    Raises:
        ImageError: as `decode`.
    """
    large = _large(source) if isinstance(source, str | Path | bytes) else None
    return Windows(decode(source)) if large is None else large


def verify(source: Source) -> tuple[int, int]:
    """Decode an image fully, and return its (width, height). Raises `ImageError`."""
    with open_windows(source) as image:
        image.reduced((1, 1))
        return image.size


class Windows:
    """A decoded image, of which parts are cropped."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self.size = image.size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, if one is open."""

    def crop(self, window: tuple[int, int, int, int]) -> Image.Image:
        """Return the part within xyxy `window`, pixels of the image."""
        return self.image.crop(window)

    def reduced(self, size: tuple[int, int]) -> Image.Image:
        """Return the whole image, resized to `size` (width, height)."""
        return resize(self.image, size)


class _FileWindows(Windows):
    """An image that is read from its file window by window, by rasterio (GDAL)."""

    def __init__(self, path: str, dataset: Any, env: Any) -> None:
        self.path = path
        self.dataset = dataset
        self.env = env  # bounds the cache of decoded blocks
        self.size = (dataset.width, dataset.height)

    def __exit__(self, *_: object) -> None:
        self.dataset.close()

    def crop(self, window: tuple[int, int, int, int]) -> Image.Image:
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
            return _from_array(colors[pixels_CHW[0]])
        if kinds[1:] == ["alpha"]:
            pixels_CHW = pixels_CHW[[0, 0, 0, 1]]
        elif len(pixels_CHW) == 4 and kinds[3] != "alpha":
            raise ImageError(f"{self.path}: expected grey, RGB or RGBA, found four channels that are something else")
        return _from_array(pixels_CHW.transpose(1, 2, 0))

    def reduced(self, size: tuple[int, int]) -> Image.Image:
        width, height = self.size
        factor = max(1, min(width // size[0], height // size[1], _STRIP // width))
        out = Image.new("RGB", (-(-width // factor), -(-height // factor)))
        rows = max(1, _STRIP // (width * factor)) * factor
        for y in range(0, height, rows):
            strip = self.crop((0, y, width, min(y + rows, height)))
            out.paste(strip.reduce(factor), (0, y // factor))
        return out.resize(size, Image.Resampling.BILINEAR, box=(0, 0, width / factor, height / factor))


def _large(source: str | Path | bytes) -> _FileWindows | None:
    """Return the image by windows if it has more than `LARGE` pixels, None if it has not.

    Raises:
        ImageError: rasterio is needed and not there, or cannot read the file.
    """
    try:
        with _open(source) as image:
            pixels, orientation = image.width * image.height, _orientation(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pixels, orientation = LARGE + 1, 1
    except _DECODER_ERRORS:
        return None  # decode() says what is wrong
    if pixels <= LARGE or isinstance(source, bytes):
        return None
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning, RasterioError
    except ImportError:
        return None  # within Pillow's limit it is decoded whole, beyond it decode() says what to install
    if orientation != 1:
        return None
    for driver in _WINDOW_DRIVERS:
        try:
            with warnings.catch_warnings(), rasterio.Env(**_GDAL) as env:
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                dataset = rasterio.open(source, driver=driver)
                _refuse_bombs(dataset, source)
                return _FileWindows(str(source), dataset, env)
        except (RasterioError, OSError):
            continue
    raise ImageError(f"{source}: too many pixels to decode at once, and not in a format that can be read by windows")


def _refuse_bombs(dataset: Any, source: str | Path) -> None:
    """Raise `ImageError` where a file holds far less than it claims, or would have to be decoded in one huge piece."""
    itemsize = max(np.dtype(name).itemsize for name in dataset.dtypes)
    pixels, size = dataset.width * dataset.height * dataset.count * itemsize, Path(source).stat().st_size
    block = max(h * w for h, w in dataset.block_shapes) * dataset.count * itemsize
    claim = f"{dataset.width}x{dataset.height} pixels"
    if size < pixels * _SMALLEST_SHARE:
        dataset.close()
        raise ImageError(f"{source}: expected an image, found {size:,} bytes that claim to hold {claim}")
    if block > _LARGEST_BLOCK:
        dataset.close()
        raise ImageError(f"{source}: too many pixels to decode at once: {claim}, stored in pieces of {block:,} bytes")


def read_size(source: str | Path) -> tuple[int, int]:
    """Return (width, height) of a file after EXIF rotation, from its header alone.

    Raises:
        ImageError: missing, or not an image.
    """
    try:
        if (windows := _large(source)) is not None:
            with windows:
                return windows.size
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
    """Return the tiles that cover an image, xyxy in its pixels, row by row.

    All are `tile` wide and high, or as the image where that is smaller; they are spread evenly, so that neighbours
    share `overlap` of a side at least.
    """

    def starts(side: int) -> list[int]:
        if side <= tile:
            return [0]
        count = math.ceil((side - tile) / max(1, math.floor(tile * (1 - overlap)))) + 1
        return [round(i * (side - tile) / (count - 1)) for i in range(count)]

    return [(x, y, min(x + tile, width), min(y + tile, height)) for y in starts(height) for x in starts(width)]


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize an RGB image to `size` (width, height): bilinear, with antialiasing where it shrinks."""
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def normalise(
    image: Image.Image | npt.NDArray[np.uint8], *, mean: Sequence[float], std: Sequence[float]
) -> npt.NDArray[np.float32]:
    """Return (x / 255 - mean) / std, channel by channel.

    Args:
        image: RGB, a Pillow image or HW3 uint8.
        mean: of each channel, in [0, 1].
        std: of each channel, in [0, 1].

    Returns:
        3HW float32.
    """
    pixels_HW3 = np.asarray(image)
    if pixels_HW3.ndim != 3 or pixels_HW3.shape[2] != 3 or pixels_HW3.dtype != np.uint8:
        raise ValueError(f"expected RGB pixels HW3 uint8, found {pixels_HW3.shape} {pixels_HW3.dtype}")
    out_3HW = np.empty((3, *pixels_HW3.shape[:2]), np.float32)
    pixels_3HW = np.ascontiguousarray(pixels_HW3.transpose(2, 0, 1))  # numpy is slow where it has to stride
    for c in range(3):
        # one multiply-add: x * 1/(255 std) - mean/std
        np.multiply(pixels_3HW[c], np.float32(1 / (255 * std[c])), out=out_3HW[c])
        out_3HW[c] -= np.float32(mean[c] / std[c])
    return out_3HW


def pad(pixels: Sequence[npt.NDArray[P]], *, divisor: int) -> npt.NDArray[P]:
    """Stack 3HW images to N3HW, zeros (the mean colour of normalised ones) at the right and bottom.

    H and W are the largest of the batch, rounded up to a multiple of `divisor`.
    """
    if not pixels:
        raise ValueError("expected at least one image, found none")
    H, W = (-(-max(p.shape[axis] for p in pixels) // divisor) * divisor for axis in (1, 2))
    out_N3HW = np.zeros((len(pixels), 3, H, W), pixels[0].dtype)
    for out_3HW, p in zip(out_N3HW, pixels, strict=True):
        out_3HW[:, : p.shape[1], : p.shape[2]] = p
    return out_N3HW


def prepare(
    images: Sequence[Image.Image | Scaled], config: InputSettings
) -> tuple[npt.NDArray[np.float32], list[Frame]]:
    """Resize, normalise and pad decoded images to one N3HW batch, with the frame of each."""
    resized, frames = _resized(images, config)
    pixels = [normalise(image, mean=config.image_mean, std=config.image_std) for image in resized]
    return pad(pixels, divisor=config.size_divisor), frames


def prepare_pixels(
    images: Sequence[Image.Image | Scaled], config: InputSettings
) -> tuple[npt.NDArray[np.uint8], list[Frame]]:
    """Resize and pad as `prepare` does, without normalising: N3HW uint8, and the frame of each image."""
    resized, frames = _resized(images, config)
    return pad([np.asarray(image).transpose(2, 0, 1) for image in resized], divisor=config.size_divisor), frames


def _resized(images: Sequence[Image.Image | Scaled], config: InputSettings) -> tuple[list[Image.Image], list[Frame]]:
    frames, resized = [], []
    for source in images:
        image, width, height = source if isinstance(source, Scaled) else (source, *source.size)
        size = resized_size(width, height, image_size=config.image_size, max_size=config.max_size)
        frames.append(Frame(width, height, *size))
        resized.append(resize(image, size))
    return resized, frames


def _open(source: str | Path | bytes | BinaryIO) -> Image.Image:
    if isinstance(source, str | Path) and Path(source).exists() and not Path(source).is_file():
        # a folder; or a device or a pipe, which may never end
        raise ImageError(f"{source}: expected an image, found {'a folder' if Path(source).is_dir() else 'no file'}")
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats that are tried, the most frequent first."""
    Image.init()
    return tuple(sorted((name for name in Image.ID if name not in _NOT_OPENED), key=lambda n: n not in {"JPEG", "PNG"}))


def _name(source: object) -> str:
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, bytes):
        return f"{len(source)} bytes"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "image")
    return str(getattr(source, "name", "file object"))


def _explain(error: Exception, source: object, name: str) -> ImageError:
    """Say what is wrong with a file in a user's words, where Pillow's would not do."""
    if isinstance(error, ImageError):
        return error
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{name}: no such file")
    if isinstance(error, IsADirectoryError):
        return ImageError(f"{name}: expected an image, found a folder")
    if isinstance(source, str | Path) and os.path.isfile(source) and not Path(source).stat().st_size:  # noqa: PTH113
        return ImageError(f"{name}: empty file")
    if isinstance(source, bytes) and not source:
        return ImageError("expected the bytes of an image, found none")
    if isinstance(error, UnidentifiedImageError):
        return ImageError(f"{name}: not an image in a format that can be read")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError(
            f"{name}: too many pixels to decode at once ({error}). With `pip install 'retinanet[large]'` it is read by "
            "windows"
        )
    if isinstance(error, MemoryError):
        return ImageError(f"{name}: cannot be decoded: it claims more pixels than there is memory for")
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
    rgb = _plain_rgb(image, name)
    return _upright(rgb, _orientation(image))  # after load(), which turns TIFF upright by itself


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
        image.info = {}  # with the orientation still in there, the next decode() would turn it again
    return image


def _plain_rgb(image: Image.Image, name: str) -> Image.Image:
    """Decode the pixels and bring them to RGB, as they are stored."""
    image.load()
    if image.mode.startswith(("I", "F")):
        image = _sixteen_bits(image, name)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    if image.mode != "RGB":
        image = image.convert("RGB")
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
