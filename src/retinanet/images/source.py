"""Open images: sources, file suffixes, the formats that are read, and the errors of decoders."""

from __future__ import annotations

import io
import itertools
import os
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from retinanet.file_kinds import START_BYTES, recognise_content

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
DECODER_ERRORS: Final = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError),
    *(struct.error, zlib.error, MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning),
)
"""Exceptions that Pillow's decoders raise for broken files; a row that is too long raises MemoryError."""
_REFUSED_FORMATS: Final = ("EPS", "WMF", "BUFR", "GRIB", "HDF5")
"""Formats that are refused: Pillow passes them to another program (EPS to Ghostscript) or to a registered handler."""
_TIFF_MAGIC: Final = frozenset((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))
_SEVERAL_IMAGES: Final = ("TIFF", "GIF", "WEBP", "PNG", "AVIF")
"""Formats whose files hold pages or frames."""
_NEW_SUBFILE_TYPE: Final = 254
"""TIFF tag whose lowest bit marks a reduced copy of another page."""
_HEIF_BRANDS: Final = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))


class ImageError(ValueError):
    """An image that cannot be decoded. The message names the image and the reason."""


def open_source(source: str | Path | bytes | BinaryIO) -> Image.Image:
    """Open an image without decoding its pixels.

    May raise any of `DECODER_ERRORS`, which `decoding_error` turns into an `ImageError`.
    """
    image = _open_any(source)
    if is_preview(image):
        image.close()
        raise ImageError(
            f"{source_name(source)}: expected an image, found a camera's raw file, of which only a preview of "
            f"{image.width}x{image.height} pixels could be read. Convert it to JPEG, PNG or TIFF first"
        )
    return image


def is_preview(image: Image.Image) -> bool:
    """Return whether a page of a TIFF is marked as a reduced copy of another page (TIFF 6.0, NewSubfileType).

    Raw files of cameras (.dng, .nef, .arw) begin with such a page.
    """
    return bool(_page_kind(image) & 0b1)


def is_first_of_several(image: Image.Image) -> bool:
    """Return whether an image file holds further images: pages of a TIFF, frames of an animation.

    Overviews and masks of a TIFF do not count (bits 0 and 2 of NewSubfileType, TIFF 6.0), nor do the further views of a
    photo (.mpo) and the sizes of an icon. May raise any of `DECODER_ERRORS`.
    """
    if image.format not in _SEVERAL_IMAGES or not getattr(image, "is_animated", False):
        return False
    if image.format != "TIFF":
        return True
    try:
        for page in itertools.count(1):  # n_frames would read the headers of all pages
            image.seek(page)
            if not _page_kind(image) & 0b101:
                return True
    except EOFError:  # after the last page
        return False
    finally:
        image.seek(0)
    return False


def _page_kind(image: Image.Image) -> int:
    """Return the NewSubfileType of a page of a TIFF; 0 if it is missing or no number."""
    kind = getattr(image, "tag_v2", {}).get(_NEW_SUBFILE_TYPE, 0)
    return kind if isinstance(kind, int) else 0


def _open_any(source: str | Path | bytes | BinaryIO) -> Image.Image:
    if isinstance(source, str | Path) and Path(source).exists() and not Path(source).is_file():
        # Reading from a device or a pipe may never end.
        raise ImageError(f"{source}: expected an image, found {'a folder' if Path(source).is_dir() else 'no file'}")
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats())
    except UnidentifiedImageError:
        if not _is_heif(source):
            raise
        _register_heif(source_name(source))
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=["HEIF"])


def is_tiff(source: object) -> bool:
    """Return whether the file or the bytes begin as a TIFF or BigTIFF does."""
    return isinstance(source, str | Path | bytes) and _head(source)[:4] in _TIFF_MAGIC


def _is_heif(source: str | Path | bytes | BinaryIO) -> bool:
    """Return whether an image is HEIF (.heic): its first box is `ftyp` with a brand of HEIF (ISO 23008-12)."""
    head = _head(source)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _head(source: str | Path | bytes | BinaryIO) -> bytes:
    """Return the first bytes of a file."""
    if isinstance(source, bytes):
        return source[:START_BYTES]
    if isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            return file.read(START_BYTES)
    source.seek(0)
    head = source.read(START_BYTES)
    source.seek(0)
    return head


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


def source_name(source: object) -> str:
    """Return the name of a source for messages."""
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, bytes):
        return f"{len(source)} bytes"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "image")
    return str(getattr(source, "name", "file object"))


def decoding_error(error: Exception, source: object, name: str) -> ImageError:
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
        return ImageError(f"{name}: {_describe_unidentified(source)}")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError(
            f"{name}: too many pixels to decode at once ({error}). Install rasterio to read it by windows: "
            "pip install 'retinanet[large]'"
        )
    if isinstance(error, MemoryError):
        return ImageError(f"{name}: cannot be decoded: its header announces more pixels than fit into memory")
    return ImageError(f"{name}: cannot be decoded ({error})")


def _describe_unidentified(source: object) -> str:
    """Return why a file is no image: a TIFF with unusual channels, a damaged HEIF, or another kind of file."""
    if isinstance(source, str | Path | bytes) and _is_heif(source):
        return "a HEIF image that is damaged, or of a kind that pillow-heif does not read"
    if is_tiff(source):
        return (
            "a TIFF with channels or values that cannot be read. Install rasterio to read more kinds of TIFF, "
            "pip install 'retinanet[large]', or convert it to grey or RGB of 8 or 16 bits"
        )
    found = recognise_content(_head(source)) if isinstance(source, str | Path | bytes) else ""
    kind = f", found {found}" if found and found != "an image" else ""
    return f"not an image in a format that can be read{kind}"
