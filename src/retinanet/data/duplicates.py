"""Duplicate images (identical pixels) and near-duplicates (recompressed, resized or brightened copies).

Shape suffixes: P images, F = 1,024 values of a fingerprint.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from retinanet import images

if TYPE_CHECKING:
    from retinanet.formats.records import Record

SIDE: Final = 32
"""Width and height of the small grey copy of an image, pixels."""
MIN_CORRELATION: Final = 0.95
"""Two images are near-duplicates if the correlation of their small grey copies is at least this value.

Measured on BCCD: one of 66,066 pairs has 0.975 (BloodImage_00037 and _00038, the same cells in another focus), the next
has 0.653. On coco128, the highest of 8,128 pairs has 0.863. Copies at JPEG quality 40, at half the size or at 1.2 times
the brightness have 0.979 or more. Of copies with 1 % cropped from each side, 90 % have 0.951 or more.
"""
MIN_DEVIATION: Final = 4.0
"""Minimum standard deviation of the grey values (0 to 255). Images below it are too uniform to be compared."""
_BLOCK: Final = 2048
_EDGES_AT_ONCE: Final = 2_000_000
"""Number of pairs of near-duplicates from which the pairs are reduced to those that connect the same images."""
_EXHAUSTIVE: Final = 20_000
"""Maximum number of images for which all pairs are compared. Above it, only pairs with a common hash part are."""


class Fingerprint(NamedTuple):
    """Digest and small copy of an image, by which duplicates are found.

    Args:
        digest: hash of the pixels, equal only for identical pixels.
        small_F: float32, small grey copy with mean 0 and norm 1; zeros for an image below `MIN_DEVIATION`.
    """

    digest: bytes
    small_F: npt.NDArray[np.float32]


def fingerprint(record: Record) -> Fingerprint | None:
    """Return the fingerprint of an image, or None if the image cannot be decoded."""
    try:
        image = images.decode_for_display(record.path)
    except images.ImageError:
        return None
    digest = hashlib.blake2b(f"{image.size}".encode() + image.tobytes(), digest_size=16).digest()
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    values_F = np.asarray(small, np.float32).reshape(-1)
    values_F = values_F - values_F.mean()
    deviation = float(values_F.std())
    is_uniform = deviation < MIN_DEVIATION
    return Fingerprint(digest, np.zeros_like(values_F) if is_uniform else values_F / np.linalg.norm(values_F))


def fingerprints(records: Sequence[Record], *, workers: int = 2) -> list[Fingerprint | None]:
    """Return the fingerprint of each image, as `fingerprint` does. Decodes every image."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        return list(pool.map(fingerprint, records))


def identical_images(prints: Sequence[Fingerprint | None]) -> list[list[int]]:
    """Return groups of two or more images with identical pixels, as lists of indices into `prints`."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, image_print in enumerate(prints):
        if image_print is not None:
            groups[image_print.digest].append(index)
    return [group for group in groups.values() if len(group) > 1]


def near_duplicates(prints: Sequence[Fingerprint | None]) -> list[tuple[int, int, float]]:
    """Return pairs (index, index, correlation) that connect all near-duplicates, those with the highest correlations.

    Two near-duplicates are a pair, or are connected by other pairs. A group of near-duplicates, such as the frames of
    a video, thus has one pair fewer than images. Pairs with identical pixels are left out.
    """
    if not prints:
        return []
    zero_F = np.zeros(SIDE * SIDE, np.float32)
    small_PF = np.stack([zero_F if p is None else p.small_F for p in prints])
    _, digest_P = np.unique([b"" if p is None else p.digest for p in prints], return_inverse=True)
    parts = [_Edges(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    for edges in _all_pairs(small_PF) if len(prints) <= _EXHAUSTIVE else _likely_pairs(small_PF):
        parts.append(edges.select(digest_P[edges.first_E] != digest_P[edges.second_E]))
        if sum(len(part.first_E) for part in parts) > _EDGES_AT_ONCE:
            parts = [_spanning_forest(parts, len(prints))]
    forest = _spanning_forest(parts, len(prints))
    return sorted(zip(forest.first_E.tolist(), forest.second_E.tolist(), forest.correlation_E.tolist(), strict=True))


class _Edges(NamedTuple):
    """Pairs of images, the first index below the second, and their correlations."""

    first_E: npt.NDArray[np.int64]
    second_E: npt.NDArray[np.int64]
    correlation_E: npt.NDArray[np.float32]

    def select(self, chosen_E: npt.NDArray[Any]) -> _Edges:
        """Return the edges that a boolean mask or indices select."""
        return _Edges(self.first_E[chosen_E], self.second_E[chosen_E], self.correlation_E[chosen_E])


def _spanning_forest(parts: Sequence[_Edges], count: int) -> _Edges:
    """Return the edges with the highest correlations that connect the same images as all edges do."""
    edges = _Edges(*map(np.concatenate, zip(*parts, strict=True)))
    _, unique_E = np.unique(edges.first_E * count + edges.second_E, return_index=True)  # hash parts repeat pairs
    edges = edges.select(unique_E)
    # Distances above 0, because scipy takes 0 for no edge.
    distance_E = 2 - edges.correlation_E.astype(np.float64)
    graph = coo_array((distance_E, (edges.first_E, edges.second_E)), shape=(count, count))
    kept = minimum_spanning_tree(graph.tocsr()).tocoo()
    is_kept_E = np.isin(edges.first_E * count + edges.second_E, kept.row.astype(np.int64) * count + kept.col)
    return edges.select(is_kept_E)


def _all_pairs(small_PF: npt.NDArray[np.float32]) -> Iterator[_Edges]:
    """Yield the near-duplicates of each block of pairs."""
    for start in range(0, len(small_PF), _BLOCK):
        for other in range(start, len(small_PF), _BLOCK):
            correlation_PP = small_PF[start : start + _BLOCK] @ small_PF[other : other + _BLOCK].T
            i, j = np.nonzero(correlation_PP >= MIN_CORRELATION)
            is_pair = start + i < other + j
            yield _Edges(start + i[is_pair], other + j[is_pair], correlation_PP[i[is_pair], j[is_pair]])


def _likely_pairs(small_PF: npt.NDArray[np.float32]) -> Iterator[_Edges]:
    """Compare only images with equal parts of a 64-bit hash (locality-sensitive hashing).

    Each bit tells whether one of 8 x 8 cells is brighter than the median cell. Near-duplicates share most bits.
    """
    side = SIDE // 8
    coarse = small_PF.reshape(-1, 8, side, 8, side).mean(axis=(2, 4))
    signs = np.packbits((coarse > np.median(coarse, axis=(1, 2), keepdims=True)).reshape(len(small_PF), 64), axis=1)
    for band in range(signs.shape[1]):
        # Two neighbouring bytes: the 256 values of one byte would put too many images into each group.
        keys = signs[:, band].astype(np.int64) * 256 + signs[:, (band + 1) % signs.shape[1]]
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
        for group in np.split(order, starts[1:]):
            for edges in _all_pairs(small_PF[group]):  # the order is stable: indices of a group ascend
                yield _Edges(group[edges.first_E], group[edges.second_E], edges.correlation_E)


def group_numbers(count: int, links: Iterable[Sequence[int]]) -> list[int]:
    """Return a group number for each of `count` items. Items connected by links share a group.

    Groups are numbered from 0 in the order of their first items.

    Args:
        count: number of items.
        links: groups of item indices that belong together.
    """
    pairs = [(link[0], index) for link in links for index in link[1:]]
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs), np.int8), (rows, columns)), shape=(count, count))
    groups: list[int] = connected_components(graph, directed=False)[1].tolist()
    return groups
