"""Decoded images in memory, so that each image file is read and decoded once: `--cache ram`.

The pixels are exactly those that decoding the file again would give. All images lie in one block of memory. Worker
processes that are forked share this block, because no process writes into it again. Spawned workers receive it through
shared memory, once. Shape suffixes: H, W; 3 is RGB.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from retinanet import images
from retinanet.config import AugmentConfig, ImageConfig
from retinanet.data.transforms import max_size_for
from retinanet.formats.records import Record

JPEG_START: Final = b"\xff\xd8\xff"
"""First bytes of every JPEG file."""
JPEG_SUFFIXES: Final = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"))


class Form(NamedTuple):
    """One form of an image in the cache.

    `resized`: upright, with `numbers` = (image_size, max_size). `whole`: upright, in original pixels. `jpeg`: decoded
    at 1/`numbers[0]` of its size, see `images.ReducedJpeg`.
    """

    path: Path
    kind: Literal["resized", "whole", "jpeg"]
    numbers: tuple[int, ...] = ()


class _Entry(NamedTuple):
    start: int
    """First byte in the block."""
    size: tuple[int, int]
    """Width and height of the stored pixels."""
    file_size: tuple[int, int]
    """Width and height of the file: after EXIF rotation, or of the stored JPEG for the form `jpeg`."""
    orientation: int = 1
    """EXIF orientation of the form `jpeg`."""
    is_resizable: bool = False
    """Whether resizing the form `whole` gives the pixels of `decode_for`."""


def plan_cache(
    records: Iterable[Record], image_config: ImageConfig, *, augment: AugmentConfig | None = None, whole: bool = False
) -> dict[Form, int]:
    """Return the forms of all images that the samples of a dataset need, and the size of each form, bytes.

    If every sample of an image has the same size, the resized image is enough. Random sizes need a larger form. Images
    with more pixels than `images.MAX_PIXELS_AT_ONCE` are read in parts, and have no form except the resized one.

    Args:
        records: images of the dataset, or their tiles.
        image_config: size of the resized images.
        augment: options of the augmentation; None: no augmentation.
        whole: whether the dataset has a custom transform, which works on original pixels.
    """
    options = augment if augment is not None and augment.augment else None
    whole = whole or (options is not None and options.crop > 0)
    base = (options.multi_scale if options is not None else ()) or (image_config.image_size,)
    low, high = options.scale_jitter if options is not None else (1.0, 1.0)
    smallest, largest = max(1, round(min(base) * low)), max(1, round(max(base) * high))
    wholes: dict[Path, tuple[int, int]] = {}
    forms: dict[Form, int] = {}
    for record in records:
        if record.window is not None or whole:
            right, bottom = (record.width, record.height) if record.window is None else record.window[2:]
            width, height = wholes.get(record.path, (0, 0))
            wholes[record.path] = (max(width, right), max(height, bottom))
            continue
        bounds = [(size, max_size_for(image_config, image_size=size)) for size in (smallest, largest)]
        sizes = [images.resized_size(record.width, record.height, image_size=s, max_size=m) for s, m in bounds]
        if smallest == largest:
            forms[Form(record.path, "resized", bounds[0])] = 3 * sizes[0][0] * sizes[0][1]
        elif record.width * record.height > images.MAX_PIXELS_AT_ONCE:
            continue
        elif record.path.suffix.lower() in JPEG_SUFFIXES:
            least, most = (images.jpeg_scale(record.width, record.height, size) for size in reversed(sizes))
            for scale in (scale for scale in (1, 2, 4, 8) if least <= scale <= most):
                pixels = -(-record.width // scale) * -(-record.height // scale)
                forms[Form(record.path, "jpeg", (scale,))] = 3 * pixels
        else:
            wholes[record.path] = (record.width, record.height)
    for path, (width, height) in wholes.items():
        if width * height <= images.MAX_PIXELS_AT_ONCE:
            forms[Form(path, "whole")] = 3 * width * height
    return forms


class ImageCache:
    """Images in memory. It does not change after its creation.

    An image that cannot be decoded, or that has another size than the dataset, is not in the cache: the dataset reads
    its file, and raises the error that it would raise without a cache. A file that changes later has no effect.

    Args:
        forms: forms to decode and the room of each, bytes, see `plan_cache`.
        bit_depth: number of bits that 16-bit images use, see `images.decode`.
        threads: number of threads that decode.
    """

    def __init__(self, forms: dict[Form, int], *, bit_depth: int, threads: int) -> None:
        starts = dict(zip(forms, itertools.accumulate(forms.values(), initial=0), strict=False))
        self._block = torch.empty(sum(forms.values()), dtype=torch.uint8)
        pixels = self._block.numpy()

        def decode(of_file: Sequence[Form]) -> list[tuple[Form, _Entry]]:
            entries = []
            for form, image, entry in _decode(of_file, bit_depth):
                width, height = entry.size
                if 3 * width * height == forms[form]:
                    start = starts[form]
                    pixels[start : start + forms[form]] = np.asarray(image).reshape(-1)
                    entries.append((form, entry._replace(start=start)))
            return entries

        by_path: dict[Path, list[Form]] = {}
        for form in forms:
            by_path.setdefault(form.path, []).append(form)
        with ThreadPoolExecutor(max(1, threads)) as pool:
            self._entries = dict(itertools.chain.from_iterable(pool.map(decode, by_path.values())))

    def __len__(self) -> int:
        """Return the number of files of which the cache holds a form."""
        return len({form.path for form in self._entries})

    @property
    def nbytes(self) -> int:
        """Size of the images, bytes."""
        return int(self._block.nbytes)

    def get(self, record: Record, *, image_size: int, max_size: int, resize: bool) -> images.Scaled | None:
        """Return the image, or the tile, of a record as decoding its file gives it, or None if it is not in the cache.

        Args:
            record: image, or tile of an image.
            image_size: shorter side of the resized image, pixels.
            max_size: largest longer side of the resized image, pixels.
            resize: whether the image is resized. False: original pixels. Tiles are never resized.
        """
        if resize and record.window is None:
            form = Form(record.path, "resized", (image_size, max_size))
            if (entry := self._entries.get(form)) is not None:
                return images.Scaled(Image.fromarray(self._pixels(entry)), *entry.file_size)
            size = images.resized_size(record.width, record.height, image_size=image_size, max_size=max_size)
            scale = images.jpeg_scale(record.width, record.height, size)
            if (entry := self._entries.get(Form(record.path, "jpeg", (scale,)))) is not None:
                image = Image.fromarray(self._pixels(entry))
                jpeg = images.ReducedJpeg(image, *entry.file_size, scale, entry.orientation)
                return jpeg.resized(image_size=image_size, max_size=max_size)
        if (entry := self._entries.get(Form(record.path, "whole"))) is None:
            return None
        x1, y1, x2, y2 = record.window or (0, 0, *entry.size)
        if x2 > entry.size[0] or y2 > entry.size[1]:
            return None  # the file has changed: reading it raises the error
        image = Image.fromarray(np.ascontiguousarray(self._pixels(entry)[y1:y2, x1:x2]))
        if record.window is not None or not resize:
            return images.Scaled(image, *image.size)
        if not entry.is_resizable:
            return None
        size = images.resized_size(*image.size, image_size=image_size, max_size=max_size)
        return images.Scaled(images.resize(image, size), *image.size)

    def _pixels(self, entry: _Entry) -> npt.NDArray[np.uint8]:
        width, height = entry.size
        block: npt.NDArray[np.uint8] = self._block[entry.start : entry.start + 3 * width * height].numpy()
        return block.reshape(height, width, 3)


def _decode(forms: Sequence[Form], bit_depth: int) -> list[tuple[Form, Image.Image, _Entry]]:
    """Return the decoded forms of one file, without those that cannot be decoded."""
    path = forms[0].path
    found: list[tuple[Form, Image.Image, _Entry]] = []
    try:
        data = b"" if all(form.kind == "resized" for form in forms) else path.read_bytes()
        for form in forms:
            if form.kind == "whole":
                image = images.decode(data, bit_depth=bit_depth)
                is_resizable = not data.startswith(JPEG_START)
                found.append((form, image, _Entry(0, image.size, image.size, is_resizable=is_resizable)))
            elif form.kind == "jpeg":
                jpeg = images.decode_jpeg(data, form.numbers[0])
                if jpeg is not None and jpeg.scale == form.numbers[0]:
                    entry = _Entry(0, jpeg.image.size, (jpeg.width, jpeg.height), jpeg.orientation)
                    found.append((form, jpeg.image, entry))
            else:
                image_size, max_size = form.numbers
                scaled = images.decode_for(path, image_size=image_size, max_size=max_size, bit_depth=bit_depth)
                found.append((form, scaled.image, _Entry(0, scaled.image.size, (scaled.width, scaled.height))))
    except (images.ImageError, OSError):
        pass  # the dataset reads the file and raises the error
    return found
