"""Decode, resize, normalise and pad images: from a file to the input of the network.

Training, prediction and the server share these functions. They need NumPy and Pillow, never torch.
Shape suffixes: N batch, H height, W width; 3 is RGB.
"""

from __future__ import annotations

import io
import math
import os
import struct
import warnings
import zlib
from collections.abc import Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from retinanet.file_kinds import START_BYTES, recognise_content
from retinanet.pixel_values import FULL_DEPTH, has_wide_colour, recognise_depth, to_8_bits, wide_colour_values

Source = str | Path | bytes | BinaryIO | np.ndarray | Image.Image
"""Input of `decode`: a path, the bytes of a file, an open file, an array or a Pillow image."""

IMAGE_SUFFIXES: Final = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"),
        *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".avif", ".heic", ".heif", ".hif", ".ppm", ".pgm", ".pbm"),
        *(".pnm", ".tga", ".icb", ".vda", ".vst", ".ico", ".pcx", ".psd", ".qoi", ".sgi", ".dds"),
    )
)
"""Suffixes of the image files that a folder, a glob or a list contributes. A file that the user names may have any
suffix."""
VIDEO_SUFFIXES: Final = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv"))
"""Suffixes of video files."""

_DECODER_ERRORS: Final = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError),
    *(struct.error, zlib.error, MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning),
)
"""Exceptions that Pillow's decoders raise for broken files; a row that is too long raises MemoryError."""

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

_REFUSED_FORMATS: Final = ("EPS", "WMF", "BUFR", "GRIB", "HDF5")
"""Formats that are refused: Pillow passes them to another program (EPS to Ghostscript) or to a registered handler."""
_SEVERAL_IMAGES: Final = ("TIFF", "GIF", "WEBP", "PNG", "AVIF")
"""Formats whose files hold pages or frames."""
_NEW_SUBFILE_TYPE: Final = 254
_HEIF_BRANDS: Final = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_MIN_FILE_SHARE: Final = 1 / 5000
"""Minimum file size per decoded byte of an image that is read by windows. Deflate packs at most 1,032 bytes into one,
so a file below this limit does not contain the pixels that its header announces."""
_MAX_BLOCK_BYTES: Final = 1_000_000_000
"""Maximum size in bytes of one stored block (tile or strip) of an image. A block is always decoded whole."""

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


class ImageError(ValueError):
    """An image that cannot be decoded. The message names the image and the reason."""


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
    """Whether the file holds further images: see `_is_first_of_several`."""


class _Decoded(NamedTuple):
    """An image as upright RGB, its largest value if it has 16 bits per channel, and whether its file holds more."""

    image: Image.Image
    largest: int | None = None
    is_first_of_several: bool = False


class Verified(NamedTuple):
    """Result of decoding all pixels of an image."""

    size: tuple[int, int]
    """Width and height in pixels, after EXIF rotation."""
    largest: int | None
    """Largest value before the reduction to 8 bits, if the image has 16 bits per channel."""
    is_first_of_several: bool = False
    """Whether the file holds further images: see `_is_first_of_several`."""


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


def _decode(source: Source, bit_depth: int) -> _Decoded:
    if isinstance(source, np.ndarray):
        return _from_array(source, bit_depth)
    name = _source_name(source)
    try:
        if isinstance(source, Image.Image):
            return _to_rgb(source, name, bit_depth)
        with _open(source) as image:
            several = _is_first_of_several(image)
            return _to_rgb(image, name, bit_depth)._replace(is_first_of_several=several)
    except _DECODER_ERRORS as error:
        raise _image_error(error, source, name) from error


def decode_for(source: Source, *, image_size: int, max_size: int, bit_depth: int = FULL_DEPTH) -> Scaled:
    """Decode and resize an image as `decode`, `resized_size` and `resize` do, in less time.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that is at least the size of the result. This takes half the
    time and changes pixels by less than one of 255 levels on average (51 dB or more on COCO images). An image of more
    than `MAX_PIXELS_AT_ONCE` pixels is read by windows.

    Raises:
        ImageError: see `decode`.
    """
    if isinstance(source, str | Path | bytes):
        if (windows := _open_large(source, bit_depth)) is not None:
            with windows:
                size = resized_size(*windows.size, image_size=image_size, max_size=max_size)
                return Scaled(windows.reduced(size), *windows.size, windows.largest, windows.is_first_of_several)
        try:
            with _open(source) as image:
                if image.format in {"JPEG", "MPO"}:
                    return _reduced_jpeg(image, _source_name(source), image_size=image_size, max_size=max_size)
                several = _is_first_of_several(image)
                decoded, largest, _ = _to_rgb(image, _source_name(source), bit_depth)
        except _DECODER_ERRORS as error:
            raise _image_error(error, source, _source_name(source)) from error
    else:
        decoded, largest, several = _decode(source, bit_depth)
    size = resized_size(*decoded.size, image_size=image_size, max_size=max_size)
    return Scaled(resize(decoded, size), *decoded.size, largest, several)


def _reduced_jpeg(image: Image.Image, name: str, *, image_size: int, max_size: int) -> Scaled:
    width, height = image.size
    size = resized_size(width, height, image_size=image_size, max_size=max_size)
    image.draft("RGB", size)
    # A scaled JPEG is rounded up to whole pixels: the last one may be covered only in part.
    scale = next((s for s in (1, 2, 4, 8) if image.size == (-(-width // s), -(-height // s))), 1)
    rgb = _stored_rgb(image, name, FULL_DEPTH).image
    orientation = _orientation(image)
    if scale > 1:
        rgb = rgb.resize(size, Image.Resampling.BILINEAR, box=(0, 0, width / scale, height / scale))
    if orientation in {5, 6, 7, 8}:
        width, height, size = height, width, size[::-1]
    return Scaled(resize(_upright(rgb, orientation), size), width, height)


def open_windows(source: Source, *, bit_depth: int = FULL_DEPTH) -> Windows:
    """Open an image to crop parts of it, in a `with` block. An image above `MAX_PIXELS_AT_ONCE` stays on the disk.

    Raises:
        ImageError: see `decode`.
    """
    large = _open_large(source, bit_depth) if isinstance(source, str | Path | bytes) else None
    return Windows(*_decode(source, bit_depth)) if large is None else large


def verify(source: Source) -> Verified:
    """Decode all pixels of an image and return its size and largest value. Raises `ImageError`."""
    with open_windows(source) as image:
        image.reduced((1, 1))
        return Verified(image.size, image.largest, image.is_first_of_several)


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


class _FileWindows(Windows):
    """An image that rasterio (GDAL) reads from its file window by window."""

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
            return _from_array(colors[pixels_CHW[0]], FULL_DEPTH).image
        if kinds[1:] == ["alpha"]:
            pixels_CHW = pixels_CHW[[0, 0, 0, 1]]
        elif len(pixels_CHW) == 4 and kinds[3] != "alpha":
            raise ImageError(
                f"{self.path}: expected grey, RGB or RGBA, found the channels {', '.join(kinds)}. Convert it first"
            )
        image, largest, _ = _from_array(pixels_CHW.transpose(1, 2, 0), self.bit_depth)
        if largest is not None:
            self.largest = max(self.largest or 0, largest)
        return image

    def reduced(self, size: tuple[int, int]) -> Image.Image:
        width, height = self.size
        factor = max(1, min(width // size[0], height // size[1], _STRIP_PIXELS // width))
        out = Image.new("RGB", (-(-width // factor), -(-height // factor)))
        rows = max(1, _STRIP_PIXELS // (width * factor)) * factor
        for y in range(0, height, rows):
            strip = self.crop((0, y, width, min(y + rows, height)))
            out.paste(strip.reduce(factor), (0, y // factor))
        return out.resize(size, Image.Resampling.BILINEAR, box=(0, 0, width / factor, height / factor))


def _open_large(source: str | Path | bytes, bit_depth: int = FULL_DEPTH) -> _FileWindows | None:
    """Return an image of more than `MAX_PIXELS_AT_ONCE` pixels for reading by windows; None for any other source.

    Raises:
        ImageError: rasterio cannot read the file.
    """
    if isinstance(source, bytes):
        return None
    try:
        with _open(source) as image:
            pixels, orientation = image.width * image.height, _orientation(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pixels, orientation = MAX_PIXELS_AT_ONCE + 1, 1
    except _DECODER_ERRORS:
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
                return _FileWindows(str(source), dataset, env, bit_depth)
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


def read_size(source: str | Path) -> tuple[int, int]:
    """Return (width, height) of a file after EXIF rotation, from its header alone.

    Raises:
        ImageError: the file is missing or not an image.
    """
    try:
        if (windows := _open_large(source)) is not None:
            with windows:
                return windows.size
        with _open(source) as image:
            turned = _orientation(image) in {5, 6, 7, 8}
            return (image.height, image.width) if turned else (image.width, image.height)
    except _DECODER_ERRORS as error:
        raise _image_error(error, source, _source_name(source)) from error


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


def _open(source: str | Path | bytes | BinaryIO) -> Image.Image:
    if isinstance(source, str | Path) and Path(source).exists() and not Path(source).is_file():
        # Reading from a device or a pipe may never end.
        raise ImageError(f"{source}: expected an image, found {'a folder' if Path(source).is_dir() else 'no file'}")
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats())
    except UnidentifiedImageError:
        if not _is_heif(source):
            raise
        _register_heif(_source_name(source))
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=["HEIF"])


def _is_first_of_several(image: Image.Image) -> bool:
    """Return whether an image file holds further images: pages of a TIFF, frames of an animation.

    Overviews and masks of a TIFF do not count (bits 0 and 2 of NewSubfileType, TIFF 6.0), nor do the further views of a
    photo (.mpo) and the sizes of an icon.
    """
    if image.format not in _SEVERAL_IMAGES or not getattr(image, "is_animated", False):
        return False
    if image.format != "TIFF":
        return True
    try:
        for page in range(1, image.n_frames):  # type: ignore[attr-defined]
            image.seek(page)
            if not image.tag_v2.get(_NEW_SUBFILE_TYPE, 0) & 0b101:  # type: ignore[attr-defined]
                return True
    finally:
        image.seek(0)
    return False


def _is_heif(source: str | Path | bytes | BinaryIO) -> bool:
    """Return whether an image is HEIF (.heic): its first box is `ftyp` with a brand of HEIF (ISO 23008-12)."""
    if isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            head = file.read(12)
    elif isinstance(source, bytes):
        head = source[:12]
    else:
        source.seek(0)
        head = source.read(12)
        source.seek(0)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _register_heif(name: str) -> None:
    """Let Pillow decode HEIF. Raise `ImageError` if the package for it is not installed."""
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError(f"{name}: HEIF images (.heic) need pillow-heif: pip install 'retinanet[heic]'") from error
    pillow_heif.register_heif_opener()


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats to try, the most frequent first."""
    Image.init()
    return tuple(
        sorted((name for name in Image.ID if name not in _REFUSED_FORMATS), key=lambda n: n not in {"JPEG", "PNG"})
    )


def _source_name(source: object) -> str:
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, bytes):
        return f"{len(source)} bytes"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "image")
    return str(getattr(source, "name", "file object"))


def _image_error(error: Exception, source: object, name: str) -> ImageError:
    """Return an error that explains why a source cannot be decoded."""
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
        found = _content(source)
        return ImageError(f"{name}: not an image in a format that can be read{f', found {found}' if found else ''}")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError(
            f"{name}: too many pixels to decode at once ({error}). Install rasterio to read it by windows: "
            "pip install 'retinanet[large]'"
        )
    if isinstance(error, MemoryError):
        return ImageError(f"{name}: cannot be decoded: its header announces more pixels than fit into memory")
    return ImageError(f"{name}: cannot be decoded ({error})")


def _content(source: object) -> str:
    """Return what a source contains instead of an image, if that is recognised."""
    found = recognise_content(source) if isinstance(source, bytes) else ""
    if isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            found = recognise_content(file.read(START_BYTES))
    return "" if found == "an image" else found


def _from_array(array: npt.NDArray[Any], bit_depth: int) -> _Decoded:
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
    rgb = _to_rgb(Image.fromarray(np.ascontiguousarray(array)), "array", FULL_DEPTH).image
    return _Decoded(rgb, largest)


def _to_rgb(image: Image.Image, name: str, bit_depth: int) -> _Decoded:
    """Return an image as upright RGB. May raise any of `_DECODER_ERRORS`."""
    rgb, largest, _ = _stored_rgb(image, name, bit_depth)
    # The orientation is read after load(), which turns a TIFF upright itself.
    return _Decoded(_upright(rgb, _orientation(image)), largest)


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
        image.info = {}  # otherwise the next decode() would apply the orientation again
    return image


def _stored_rgb(image: Image.Image, name: str, bit_depth: int) -> _Decoded:
    """Return an image as RGB in its stored orientation."""
    largest = None
    if has_wide_colour(image):
        image, largest, _ = _reduced_colour(image, bit_depth)
    image.load()
    if image.mode.startswith(("I", "F")):
        values_HW = _grey_values(image, name)
        largest = int(values_HW.max())
        image = Image.fromarray(to_8_bits(values_HW, bit_depth))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return _Decoded(image, largest)


def _reduced_colour(image: Image.Image, bit_depth: int) -> _Decoded:
    """Return an image with 16 bits per channel as 8 bits per channel, and the largest value of its colours."""
    if (bit_depth or FULL_DEPTH) == FULL_DEPTH:
        image.load()  # Pillow keeps the high byte of each value
        bands = image.getextrema()[: 1 if image.mode == "LA" else 3]
        return _Decoded(image, int(max(band[1] for band in bands)) << 8 | 0xFF)  # type: ignore[index]
    values_HWC = wide_colour_values(image)
    colours = 1 if values_HWC.shape[2] == 2 else 3
    reduced_HWC = to_8_bits(values_HWC, FULL_DEPTH)  # transparency is not scaled
    reduced_HWC[..., :colours] = to_8_bits(values_HWC[..., :colours], bit_depth)
    return _Decoded(Image.fromarray(reduced_HWC, mode=image.mode), int(values_HWC[..., :colours].max()))


def _grey_values(image: Image.Image, name: str) -> npt.NDArray[Any]:
    """Return the values of 16-bit grey. Raise `ImageError` for wider values, which have no defined range."""
    values_HW = np.asarray(image)
    if values_HW.dtype.kind == "f" or values_HW.min() < 0 or values_HW.max() > 0xFFFF:
        raise ImageError(
            f"{name}: expected 8 or 16 bits per channel, found {values_HW.dtype} from {values_HW.min()} to "
            f"{values_HW.max()}, which has no defined black and white. Convert it to 8 or 16 bits first"
        )
    return values_HW


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 (upright) if it is missing or the EXIF block is broken."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except _DECODER_ERRORS:
        return 1
    return orientation if isinstance(orientation, int) else 1
