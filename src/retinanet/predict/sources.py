"""Turn everything that a caller may pass as an image into one of the forms that `images.decode` reads.

Needs numpy and Pillow, never torch. Shape suffixes: H, W, C channels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from retinanet.errors import UserError
from retinanet.files import local_path
from retinanet.images import ImageError
from retinanet.predict.batches import Source

_EXPECTED: Final = "an image (path, bytes, open file, Pillow image or RGB array)"
_CHANNELS: Final = {1, 3, 4}
"""Numbers of channels of an image: grey, RGB, RGBA."""


def is_list_of_images(source: object) -> bool:
    """Return whether a source stands for several images in an order: a list, an iterator, or an array of images.

    An array is a list if it has four dimensions (images), or one (paths). Sets have no order, so they are no list.
    """
    if isinstance(source, str | bytes | bytearray | memoryview | os.PathLike | Image.Image | Mapping | Set):
        return False
    if _is_array(source):
        return getattr(source, "ndim", 0) in {1, 4}
    return isinstance(source, Iterable) and not hasattr(source, "read")


def to_source(source: object) -> Source:
    """Return one image as a path, bytes, a Pillow image or an array. An open file is read to its end.

    - A string that begins with file:// is a path.
    - An array or tensor may be (C, H, W) if that is unambiguous: C is 1, 3 or 4, and W is not.
    - Float pixels are in [0, 1], as in torchvision.

    Args:
        source: path, bytes, open file, Pillow image, array, or tensor on the CPU.

    Raises:
        ImageError: the source is none of these.
    """
    if isinstance(source, Path | bytes | Image.Image):
        return source
    if isinstance(source, str | os.PathLike):
        try:
            return local_path(os.fsdecode(source))
        except UserError as error:
            raise ImageError(str(error)) from error
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if _is_array(source):
        return _to_array(source)
    if callable(read := getattr(source, "read", None)):
        return _read(source, read)
    if source is None:
        raise ImageError(
            f"the image is None, which cv2.imread returns for a file that it cannot read. Give {_EXPECTED}"
        )
    if isinstance(source, Set):
        raise ImageError("expected images in an order, found a set. Pass a list, for example sorted(images)")
    found = f"a {type(source).__name__} is no image"
    if isinstance(source, int):
        found = (
            f"the number {source} is no image. A camera is not opened: read its frames, for example with OpenCV, and "
            "pass arrays"
        )
    raise ImageError(f"{found}. Expected {_EXPECTED}")


def _is_array(source: object) -> bool:
    """Return whether a source is a NumPy array or can become one, such as a tensor of PyTorch."""
    return hasattr(source, "__array__") and not isinstance(source, str | bytes | Image.Image)


def _to_array(source: Any) -> npt.NDArray[Any]:
    try:
        array = np.asarray(source.detach() if hasattr(source, "detach") else source)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ImageError(
            f"NumPy cannot read this {type(source).__name__} ({error}): copy a tensor to the CPU in float32 or uint8 "
            f"first. Expected {_EXPECTED}"
        ) from error
    if array.ndim == 3 and array.shape[0] in _CHANNELS and array.shape[2] not in _CHANNELS:
        array = array.transpose(1, 2, 0)
    if array.dtype.kind != "f" or not array.size:
        return array
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):
        raise ImageError(
            f"expected float pixels in [0, 1], found {low:g} to {high:g}. Pass uint8 pixels, without normalisation"
        )
    return np.rint(array.astype(np.float32) * 255).astype(np.uint8)


def _read(source: Any, read: Any) -> bytes:
    """Return the content of an open file, from its start if the file can be rewound."""
    name = getattr(source, "name", type(source).__name__)
    try:
        if getattr(source, "seekable", bool)():
            source.seek(0)
        content = read()
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{name}: expected an open file with an image, found one that cannot be read ({error})"
        ) from error
    if not isinstance(content, bytes | bytearray):
        raise ImageError(f"{name}: expected a file that was opened in binary mode ('rb'), found text")
    return bytes(content)
