"""Assignment of anchors by ATSS (Zhang et al., arXiv 1912.02424, section 3.2 and algorithm 1).

`retinanet.matching.ATSSAssigner` documents the rule. There are two forms: C for tensors on the CPU, and batched torch
otherwise. Both forms return equal results, bit for bit.

Shape suffixes: A anchors, P positions of a level, C anchors per position.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import torch

from retinanet.ops.atss_native import atss_native, supports_atss_native
from retinanet.ops.atss_torch import atss_torch, rounded_centres

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.types import AnchorTargets, Target

MAX_STORED: Final = 16
"""Number of sets of anchors whose positions are stored, that of `AnchorGenerator`."""


def atss(
    anchors_A4: Tensor,
    targets: Sequence[Target],
    *,
    anchors_per_level: Sequence[int],
    candidates: int,
    crowd_share: float,
    low_quality_matches: bool,
) -> AnchorTargets:
    """Return whether each anchor of each image is positive, negative or ignored, and its matched ground-truth box.

    Anchors and boxes are compared in float32.

    Args:
        anchors_A4: anchors, xyxy, input pixels.
        targets: ground truth of each image, at least one image.
        anchors_per_level: number of anchors of each feature level.
        candidates: number of positions of each level whose anchors are candidates of an object.
        crowd_share: share of the area of a negative anchor in a crowd region at which the anchor is ignored.
        low_quality_matches: whether an object without a positive anchor gets the candidate with the highest IoU.

    Raises:
        ValueError: the numbers of anchors of the levels do not add up to the number of anchors.
    """
    form = atss_native if supports_atss_native(anchors_A4, targets) else atss_torch
    return form(
        anchors_A4,
        targets,
        positions=level_positions(anchors_A4, tuple(anchors_per_level)),
        candidates=candidates,
        crowd_share=crowd_share,
        low_quality_matches=low_quality_matches,
    )


@functools.lru_cache(maxsize=MAX_STORED)
def level_positions(anchors_A4: Tensor, anchors_per_level: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return the number of positions of each level, and the number of anchors at each position of the level.

    Consecutive anchors with one centre lie at one position. If the positions of a level have different numbers of
    anchors, each anchor counts as a position. For anchors on a GPU, the CPU waits. The results for the last
    `MAX_STORED` tensors are stored, so that the CPU waits once for each image size.

    Raises:
        ValueError: the numbers of anchors of the levels do not add up to the number of anchors.
    """
    if sum(anchors_per_level) != len(anchors_A4):
        raise ValueError(
            f"expected anchors_per_level that add up to the number of anchors, {len(anchors_A4)}, found "
            f"{anchors_per_level}"
        )
    centres_A2 = rounded_centres(anchors_A4.detach().to(torch.float32)).cpu()
    positions = []
    for centres_L2 in torch.split(centres_A2, list(anchors_per_level)):
        L = len(centres_L2)
        starts_L = (centres_L2[1:] != centres_L2[:-1]).any(dim=1).nonzero().flatten() + 1
        C = int(starts_L[0]) if len(starts_L) else max(1, L)
        P = max(1, L // C) if L else 0
        if P * C != L or not torch.equal(starts_L, torch.arange(1, max(1, P), device=starts_L.device) * C):
            P, C = L, 1
        positions.append((P, C))
    return tuple(positions)
