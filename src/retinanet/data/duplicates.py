"""Images that are the same: by content, pixel for pixel, and nearly, after another compression, size or brightness.

Shape suffixes: P images, F = 1,024 values of a fingerprint.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retinanet import images

if TYPE_CHECKING:
    from retinanet.formats.records import Record

SIDE: Final = 32
"""Pixels of the small grey copy of an image."""
ALIKE: Final = 0.95
"""Correlation of two small copies from which the images count as nearly the same.

Measured: of BCCD's 66,066 pairs one has 0.975 (BloodImage_00037 and _00038, the same cells at another focus) and the
next 0.653; of coco128's 8,128 pairs the highest has 0.863. Copies at JPEG quality 40, half the size or 1.2 times the
brightness have 0.979 or more, nine in ten of those with 1 % cut off at each side 0.951.
"""
PLAIN: Final = 4.0
"""Standard deviation (of 255 grey values) below which an image shows too little to be compared."""
_BLOCK: Final = 2048
_EXHAUSTIVE: Final = 20_000
"""Up to so many images all pairs are compared; beyond, those that share a part of a hash."""


class Fingerprint(NamedTuple):
    """What tells an image from others.

    Args:
        digest: of its pixels: the same only for the very same pixels.
        small_F: float32, the small grey copy with mean 0 and length 1; zeros for an image without contrast.
    """

    digest: bytes
    small_F: npt.NDArray[np.float32]


def fingerprint(record: Record) -> Fingerprint | None:
    """Return an image's fingerprint, None where it does not decode (which `data.load` reports)."""
    try:
        image = images.decode(record.path)
    except images.ImageError:
        return None
    digest = hashlib.blake2b(f"{image.size}".encode() + image.tobytes(), digest_size=16).digest()
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    values_F = np.asarray(small, np.float32).reshape(-1)
    values_F = values_F - values_F.mean()
    deviation = float(values_F.std())
    return Fingerprint(digest, values_F / np.linalg.norm(values_F) if deviation >= PLAIN else np.zeros_like(values_F))


def fingerprints(records: Sequence[Record], *, workers: int = 2) -> list[Fingerprint | None]:
    """Return the fingerprint of each image; decodes all of them."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        return list(pool.map(fingerprint, records))


def same(prints: Sequence[Fingerprint | None]) -> list[list[int]]:
    """Return the groups of places with the very same pixels, of two or more."""
    places: dict[bytes, list[int]] = defaultdict(list)
    for place, found in enumerate(prints):
        if found is not None:
            places[found.digest].append(place)
    return [group for group in places.values() if len(group) > 1]


def nearly_same(prints: Sequence[Fingerprint | None]) -> list[tuple[int, int, float]]:
    """Return the pairs of places that look alike, with their correlation, those with the very same pixels left out."""
    zero_F = np.zeros(SIDE * SIDE, np.float32)
    small_PF = (
        np.stack([zero_F if p is None else p.small_F for p in prints]) if prints else np.zeros((0, 1), np.float32)
    )
    pairs = _all_pairs(small_PF) if len(prints) <= _EXHAUSTIVE else _likely_pairs(small_PF)
    found = []
    for first, second, alike in pairs:
        one, other = prints[first], prints[second]
        if one is not None and other is not None and one.digest != other.digest:
            found.append((first, second, alike))
    return found


def _all_pairs(small_PF: npt.NDArray[np.float32]) -> Iterator[tuple[int, int, float]]:
    for start in range(0, len(small_PF), _BLOCK):
        for other in range(start, len(small_PF), _BLOCK):
            alike = small_PF[start : start + _BLOCK] @ small_PF[other : other + _BLOCK].T
            for i, j in np.argwhere(alike >= ALIKE).tolist():
                if start + i < other + j:
                    yield start + i, other + j, float(alike[i, j])


def _likely_pairs(small_PF: npt.NDArray[np.float32]) -> Iterator[tuple[int, int, float]]:
    """Compare the images that share a byte of the signs of 64 coarse differences: alike ones share most of them."""
    side = SIDE // 8
    coarse = small_PF.reshape(-1, 8, side, 8, side).mean(axis=(2, 4))
    signs = np.packbits((coarse > np.median(coarse, axis=(1, 2), keepdims=True)).reshape(len(small_PF), 64), axis=1)
    seen: set[tuple[int, int]] = set()
    for band in range(signs.shape[1]):
        # with the neighbouring byte, or else each of the 256 values would hold too many images
        keys = signs[:, band].astype(np.int64) * 256 + signs[:, (band + 1) % signs.shape[1]]
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
        for group in np.split(order, starts[1:]):
            for i, j, alike in _all_pairs(small_PF[group]):
                pair = (int(min(group[i], group[j])), int(max(group[i], group[j])))
                if pair not in seen:
                    seen.add(pair)
                    yield *pair, alike


def joined(count: int, links: Iterable[Sequence[int]], keys: Sequence[Hashable] | None = None) -> list[int]:
    """Return a group number for each of `count` things: those that links or equal keys join have the same.

    Groups are numbered from 0 in the order of their first things.

    Args:
        count: of things.
        links: places that belong together.
        keys: of each thing; equal ones belong together, None to none.
    """
    first: dict[Hashable, int] = {}
    pairs = [(first.setdefault(key, place), place) for place, key in enumerate(keys or ()) if key is not None]
    pairs += [(link[0], place) for link in links for place in link[1:]]
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs), np.int8), (rows, columns)), shape=(count, count))
    groups: list[int] = connected_components(graph, directed=False)[1].tolist()
    return groups
