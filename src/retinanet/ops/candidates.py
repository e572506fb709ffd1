"""Candidates: the highest class scores of each feature level, in C or torch for an image, and in torch for a batch.

A candidate is an (anchor, class) pair that prediction decodes to a box and passes to NMS. All forms return equal
results. Source of the rule: Lin et al., arXiv 1708.02002, section 4.1, "Inference".

Shape suffixes: N batch, A anchors of all levels, L anchors of one level, K classes, C candidates, R rows of B scores,
V scores of the rows that may hold candidates.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch

from retinanet.ops.native_library import DTYPE_CODES, address, available, buffer, call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_MOST_VALUES = 1 << 24
"""Number of scores of a batch that are sorted together. A sort needs about 400 MB for this number."""
_BLOCK = 64
"""Number of scores in a row. Longer rows would hold more scores that are no candidates. Shorter rows would not fill the
vector registers."""


def candidates(
    logits_AK: Tensor, anchors_per_level: Sequence[int], *, threshold: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the highest scores of each feature level: at most `most` per level, all above the threshold.

    Candidates are ordered by level, then by falling score, then by anchor, then by class. NaN is never a candidate.

    Args:
        logits_AK: class scores of one image before the sigmoid, any float type.
        anchors_per_level: number of anchors of each level; they add up to A.
        threshold: logit, compared in float32, that a candidate must exceed.
        most: largest number of candidates of a level, above 0.

    Returns:
        anchor_C: int64 index of the anchor among all A anchors.
        label_C: int64 class id.
        logit_C: float32 class score before the sigmoid.

    Raises:
        ValueError: `anchors_per_level` does not add up to A.
    """
    form = candidates_native if supports_candidates_native(logits_AK, anchors_per_level) else candidates_torch
    return form(logits_AK, anchors_per_level, threshold=threshold, most=most)


def candidates_torch(
    logits_AK: Tensor, anchors_per_level: Sequence[int], *, threshold: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the candidates in torch, on any device. Arguments and results are those of `candidates`.

    A first pass computes the highest score of every row. The `most` highest scores of a level are in the `most` rows
    with the highest maxima, because every score of another row is below at least `most` scores. No tensor of the size
    of the logits is allocated.
    """
    logits_AK = logits_AK.detach()
    A, K = logits_AK.shape
    _check_levels(A, anchors_per_level)
    levels, offset = [], 0
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
            levels.append((offset + index_C // K, index_C % K, value_V[best_C]))
        offset += len(logits_LK)
    if not levels:
        empty = torch.zeros(0, dtype=torch.int64, device=logits_AK.device)
        return empty, empty, empty.float()
    anchor_C, label_C, logit_C = (torch.cat(column) for column in zip(*levels, strict=True))
    return anchor_C, label_C, logit_C


def batch_candidates(
    logits_NAK: Tensor, anchors_per_level: Sequence[int], *, threshold: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the candidates of each image of a batch in tensors of fixed size, for GPUs.

    The CPU never waits for the device: no size depends on values. The number of operations does not depend on the
    number of images, except that more than `_MOST_VALUES` scores are sorted in several parts.

    The steps are those of `candidates_torch`, with one row for each anchor. Sorting is stable, so equal scores have the
    order of their anchors and classes, which the top-k of a GPU does not guarantee.

    Args:
        logits_NAK: class scores of a batch before the sigmoid, any float type.
        anchors_per_level: number of anchors of each level; they add up to A.
        threshold: logit, compared in float32, that a candidate must exceed.
        most: largest number of candidates of a level, above 0.

    Returns:
        anchor_NC: int64 index of the anchor among all A anchors.
        label_NC: int64 class id.
        logit_NC: float32 class score before the sigmoid; -inf at places without a candidate. If a score of an image is
            NaN, all its values are NaN, and the scores must be passed again with -inf instead of NaN.

        C is the sum of the largest numbers of candidates of all levels. The order is that of `candidates`; the places
        without a candidate are at the end of each level.

    Raises:
        ValueError: `anchors_per_level` does not add up to A.
    """
    _, A, K = logits_NAK.shape
    _check_levels(A, anchors_per_level)
    rows = sum(min(most, count) for count in anchors_per_level)
    images = max(1, _MOST_VALUES // max(1, rows * K))
    parts = [
        _part_candidates(part, anchors_per_level, threshold, most) for part in torch.split(logits_NAK.detach(), images)
    ]
    if len(parts) == 1:
        return parts[0]
    anchor_NC, label_NC, logit_NC = (torch.cat(column) for column in zip(*parts, strict=True))
    return anchor_NC, label_NC, logit_NC


def _part_candidates(
    logits_NAK: Tensor, anchors_per_level: Sequence[int], threshold: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the candidates of some images of a batch: see `batch_candidates`."""
    N, _, K = logits_NAK.shape
    if not logits_NAK.numel():
        empty_N0 = torch.zeros((N, 0), dtype=torch.int64, device=logits_NAK.device)
        return empty_N0, empty_N0, empty_N0.float()
    highest_NA = logits_NAK.amax(dim=2)
    chosen, first = [], 0
    for highest_NL in torch.split(highest_NA, list(anchors_per_level), dim=1):
        chosen.append(highest_NL.sort(dim=1, descending=True, stable=True).indices[:, :most] + first)
        first += highest_NL.shape[1]
    anchor_NR = torch.cat(chosen, dim=1).sort(dim=1).values
    value_NRK = logits_NAK.gather(1, anchor_NR.unsqueeze(2).expand(-1, -1, K)).float()
    value_NRK = value_NRK.masked_fill(~(value_NRK > threshold), -torch.inf)
    levels, first = [], 0
    for value_NV in torch.split(value_NRK.flatten(1), [K * level.shape[1] for level in chosen], dim=1):
        logit_NV, index_NV = value_NV.sort(dim=1, descending=True, stable=True)
        levels.append((logit_NV[:, :most], index_NV[:, :most] + first))
        first += value_NV.shape[1]
    logit_NC, index_NC = (torch.cat(column, dim=1) for column in zip(*levels, strict=True))
    logit_NC = logit_NC.masked_fill(highest_NA.isnan().any(dim=1, keepdim=True), torch.nan)
    return anchor_NR.gather(1, index_NC // K), index_NC % K, logit_NC


def _check_levels(A: int, anchors_per_level: Sequence[int]) -> None:
    if sum(anchors_per_level) != A or min(anchors_per_level, default=0) < 0:
        raise ValueError(
            f"expected anchors_per_level of 0 or more that add up to {A}, found {tuple(anchors_per_level)}"
        )


def _blocks(logits_LK: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores as rows of `_BLOCK` scores, and the remaining scores at the end. The results are views.

    Rows of `_BLOCK` scores are read three times as fast as rows of 91 classes, which do not fill whole vectors.
    """
    if not logits_LK.is_contiguous():
        return logits_LK, logits_LK.new_empty(0)
    flat = logits_LK.view(-1)
    whole = len(flat) // _BLOCK * _BLOCK
    return flat[:whole].view(-1, _BLOCK), flat[whole:]


def _highest(blocks_RB: Tensor) -> Tensor:
    """Return the highest score of each row. NaN is skipped; a row of NaN only gives -inf."""
    highest_R = blocks_RB.amax(dim=1)
    broken = torch.nonzero(highest_R.isnan()).squeeze(1)
    if len(broken):
        values = blocks_RB[broken]
        highest_R[broken] = values.masked_fill(values.isnan(), -torch.inf).amax(dim=1)
    return highest_R


def _best(values: Tensor, threshold: float, most: int) -> Tensor:
    """Return the indices of the largest values above the threshold, at most `most`, by falling value.

    Equal values are ordered by their index.
    """
    index = torch.nonzero(values > threshold).squeeze(1)
    if len(index) > most:
        # topk returns an arbitrary choice of equal values. So all values equal to the smallest stay until the sort.
        index = index[values[index] >= values[index].topk(most, sorted=False).values.min()]
    return index[values[index].argsort(descending=True, stable=True)[:most]]


def supports_candidates_native(logits_AK: Tensor, anchors_per_level: Sequence[int]) -> bool:
    """Return whether `candidates_native` supports these inputs.

    It supports a contiguous CPU tensor of float32, bfloat16 or float16 with fewer than 2^32 scores in each level. It
    requires the C library.
    """
    K = logits_AK.shape[1]
    plain = logits_AK.device.type == "cpu" and logits_AK.dtype in DTYPE_CODES and logits_AK.is_contiguous()
    return plain and all(count * K < 2**32 for count in anchors_per_level) and available()


def candidates_native(
    logits_AK: Tensor, anchors_per_level: Sequence[int], *, threshold: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the candidates in C. Arguments and results are those of `candidates`.

    The inputs must fulfil `supports_candidates_native`.
    """
    A, K = logits_AK.shape
    _check_levels(A, anchors_per_level)
    room = sum(min(most, count * K) for count in anchors_per_level)
    anchor_C, label_C = buffer(room, dtype=torch.int64), buffer(room, dtype=torch.int64)
    logit_C = buffer(room, dtype=torch.float32)
    found = ctypes.c_int64()
    levels = (ctypes.c_int64 * max(1, len(anchors_per_level)))(*anchors_per_level)
    call(
        "rn_candidates",
        address(logits_AK, name="logits", dtype=logits_AK.dtype, shape=(A, K)),
        DTYPE_CODES[logits_AK.dtype],
        ctypes.addressof(levels),
        len(anchors_per_level),
        K,
        threshold,
        most,
        torch.get_num_threads(),
        address(anchor_C, name="anchor", dtype=torch.int64, shape=(room,)),
        address(label_C, name="label", dtype=torch.int64, shape=(room,)),
        address(logit_C, name="logit", dtype=torch.float32, shape=(room,)),
        ctypes.addressof(found),
    )
    return anchor_C[: found.value], label_C[: found.value], logit_C[: found.value]
