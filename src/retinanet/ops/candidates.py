"""The best scores of each pyramid level.

A anchors of all levels, L of one level, K classes, C candidates; R rows of B scores, V scores that are looked at.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch

from retinanet.ops.native_library import address, available, call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_BLOCK = 64
"""Scores that are looked at together: few enough that the best blocks hold little else, wide enough for vectors."""

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""As candidates.c numbers them."""


def candidates(
    logits_AK: Tensor, anchors_per_level: Sequence[int], *, threshold: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each level's `most` best scores above the threshold.

    Level by level, in each the best first; of equals the one of the first anchor, then of the first class. NaN is none.

    Args:
        logits_AK: class scores of one picture before the sigmoid, any float type. Nothing as large is made of it.
        anchors_per_level: how many of the A anchors each level holds.
        threshold: a logit; compared in float32.
        most: above 0.

    Returns:
        anchor_C: int64, among all A.
        label_C: int64 class.
        logit_C: float32.
    """
    K = logits_AK.shape[1]
    native = logits_AK.device.type == "cpu" and logits_AK.dtype in TYPES and logits_AK.is_contiguous()
    if native and all(count * K < 2**32 for count in anchors_per_level) and available():
        return _native(logits_AK, anchors_per_level, threshold, most)
    return candidates_torch(logits_AK, anchors_per_level, threshold=threshold, most=most)


def candidates_torch(
    logits_AK: Tensor, anchors_per_level: Sequence[int], *, threshold: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same without the library.

    One reading finds the highest score of every block. The best `most` scores of a level lie in the `most` blocks with
    the best highest ones: every other score has those ahead of it.
    """
    logits_AK = logits_AK.detach()
    K = logits_AK.shape[1]
    found, offset = [], 0
    for logits_LK in torch.split(logits_AK, list(anchors_per_level)):
        if logits_LK.numel():
            blocks_RB, rest = _blocks(logits_LK)
            row_R = _best(_highest(blocks_RB).float(), threshold, most).sort().values
            place_B = torch.arange(blocks_RB.shape[1], device=row_R.device)
            place_of_rest = torch.arange(blocks_RB.numel(), logits_LK.numel(), device=row_R.device)
            index_V = torch.cat([(row_R[:, None] * len(place_B) + place_B).flatten(), place_of_rest])
            value_V = torch.cat([blocks_RB[row_R].flatten(), rest]).float()
            best_C = _best(value_V, threshold, most)
            index_C = index_V[best_C]
            found.append((offset + index_C // K, index_C % K, value_V[best_C]))
        offset += len(logits_LK)
    if not found:
        nothing = torch.zeros(0, dtype=torch.int64, device=logits_AK.device)
        return nothing, nothing, nothing.float()
    anchor_C, label_C, logit_C = (torch.cat(column) for column in zip(*found, strict=True))
    return anchor_C, label_C, logit_C


def _blocks(logits_LK: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores in rows of one width, in their order, and the few that fill none. No copy.

    Rows of `_BLOCK` are read three times as fast as rows of 91 classes, which no vector fits.
    """
    if not logits_LK.is_contiguous():
        return logits_LK, logits_LK.new_empty(0)
    flat = logits_LK.view(-1)
    whole = len(flat) // _BLOCK * _BLOCK
    return flat[:whole].view(-1, _BLOCK), flat[whole:]


def _highest(blocks_RB: Tensor) -> Tensor:
    """Return the highest score of each row, of those that are numbers; -inf where there is none."""
    highest_R = blocks_RB.amax(dim=1)
    broken = torch.nonzero(highest_R.isnan()).squeeze(1)
    if len(broken):
        values = blocks_RB[broken]
        highest_R[broken] = values.masked_fill(values.isnan(), -torch.inf).amax(dim=1)
    return highest_R


def _best(values: Tensor, threshold: float, most: int) -> Tensor:
    """Return where the `most` largest values above the threshold are, the largest first, of equals the first."""
    index = torch.nonzero(values > threshold).squeeze(1)
    if len(index) > most:
        # What equals the last is kept until the stable sort decides: topk itself takes any of equals.
        index = index[values[index] >= values[index].topk(most, sorted=False).values.min()]
    return index[values[index].argsort(descending=True, stable=True)[:most]]


def _native(
    logits_AK: Tensor, anchors_per_level: Sequence[int], threshold: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    A, K = logits_AK.shape
    if sum(anchors_per_level) != A or min(anchors_per_level, default=0) < 0:
        raise ValueError(f"expected anchors_per_level that add up to {A}, found {tuple(anchors_per_level)}")
    room = sum(min(most, count * K) for count in anchors_per_level)
    anchor_C, label_C = torch.empty(room, dtype=torch.int64), torch.empty(room, dtype=torch.int64)
    logit_C = torch.empty(room, dtype=torch.float32)
    found = ctypes.c_int64()
    levels = (ctypes.c_int64 * max(1, len(anchors_per_level)))(*anchors_per_level)
    call(
        "rn_candidates",
        address(logits_AK, name="logits", dtype=logits_AK.dtype, shape=(A, K)),
        TYPES[logits_AK.dtype],
        ctypes.addressof(levels),
        len(anchors_per_level),
        K,
        threshold,
        most,
        torch.get_num_threads(),
        anchor_C.data_ptr(),
        label_C.data_ptr(),
        logit_C.data_ptr(),
        ctypes.addressof(found),
    )
    return anchor_C[: found.value], label_C[: found.value], logit_C[: found.value]
