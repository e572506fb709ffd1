"""Types and functions for batches of images: sources, decoded batches, and results per image.

Needs numpy, Pillow and supervision, never torch. Shape suffixes: N batch, H, W; 3 is RGB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from retinanet.images import Frame, ImageError
from retinanet.types import ArrayDetections

Pixels = npt.NDArray[np.float32] | npt.NDArray[np.uint8]

Source = str | Path | bytes | Image.Image | npt.NDArray[Any]
"""Image as a caller passes it. `sources.to_source` accepts further types."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageResult:
    """Result of one image: its original size and its detections, or the error if it cannot be decoded.

    Args:
        source: image as the caller passed it.
        width: original pixels; 0 with an error.
        height: original pixels; 0 with an error.
        detections: detections in original pixels; None with an error.
        error: reason why the image cannot be decoded; None with detections.
    """

    source: Source
    width: int = 0
    height: int = 0
    detections: ArrayDetections | None = None
    error: ImageError | None = None

    def result(self) -> ArrayDetections:
        """Return the detections, or raise the error."""
        if self.detections is None:
            raise self.error or RuntimeError("neither detections nor an error")
        return self.detections


@dataclass(frozen=True, kw_only=True, slots=True)
class InputBatch:
    """One batch of decoded images.

    Args:
        sources: images as the caller passed them.
        errors: for each source, None or the reason why it cannot be decoded.
        images: network input of each decoded source, 3HW, in order. Each image is padded alone, so that its input does
            not depend on the other images.
        frames: sizes of each decoded source before and after resizing.
        decodable: the decoded sources in a form that can be decoded again: an open file is read only once.
    """

    sources: Sequence[Source]
    errors: list[ImageError | None]
    images: list[Pixels]
    frames: list[Frame]
    decodable: list[Source]


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` items. The last list may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def load_ahead(
    batches: Iterable[Sequence[Source]], load: Callable[[Sequence[Source]], InputBatch], workers: int
) -> Iterator[InputBatch]:
    """Yield the loaded batches in order, while threads load the next ones.

    Args:
        batches: batches of image sources.
        load: function that decodes one batch.
        workers: number of threads, and of batches loaded ahead; 0: load in the calling thread.
    """
    if workers == 0:
        yield from (load(batch) for batch in batches)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="retinanet-load")
    waiting: deque[Future[InputBatch]] = deque()
    try:
        for batch in batches:
            waiting.append(pool.submit(load, batch))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
