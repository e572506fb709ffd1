"""Matching in C. N batch, A anchors, G ground-truth boxes of all pictures."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from retinanet.ops.native_library import address, available, call
from retinanet.types import AnchorTargets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.types import Target


def can_match(anchors_A4: Tensor, targets: Sequence[Target]) -> bool:
    """Whether the library serves here: float32 anchors on the CPU, and the targets there too."""
    if anchors_A4.device.type != "cpu" or anchors_A4.dtype != torch.float32 or not targets:
        return False
    return all(target.boxes_G4.device.type == "cpu" for target in targets) and available()


def match(
    anchors_A4: Tensor,
    targets: Sequence[Target],
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality_matches: bool,
) -> AnchorTargets:
    """Return what `retinanet.matching.match_torch` does, bit for bit. Ask `can_match` first."""
    N, A = len(targets), len(anchors_A4)
    anchors_A4 = anchors_A4.detach().contiguous()
    boxes_G4 = torch.cat([target.boxes_G4.detach().to(torch.float32) for target in targets]).contiguous()
    labels_G = torch.cat([target.labels_G.to(torch.int64) for target in targets])
    crowd_G = torch.cat([target.crowd_G.to(torch.bool) for target in targets])
    starts = torch.tensor(list(accumulate((len(target.boxes_G4) for target in targets), initial=0)))
    G = len(boxes_G4)
    if G >= 2**31:
        raise ValueError(f"expected fewer than 2^31 boxes, found {G}")
    positive_NA, ignored_NA = torch.empty(N, A, dtype=torch.bool), torch.empty(N, A, dtype=torch.bool)
    labels_NA, matched_NA = torch.empty(N, A, dtype=torch.int64), torch.empty(N, A, dtype=torch.int64)
    boxes_NA4 = torch.empty(N, A, 4, dtype=torch.float32)
    call(
        "rn_match",
        address(anchors_A4, name="anchors", dtype=torch.float32, shape=(A, 4)),
        A,
        address(boxes_G4, name="boxes", dtype=torch.float32, shape=(G, 4)),
        address(labels_G, name="labels", dtype=torch.int64, shape=(G,)),
        address(crowd_G, name="crowd", dtype=torch.bool, shape=(G,)),
        address(starts, name="starts", dtype=torch.int64, shape=(N + 1,)),
        N,
        positive_iou,
        negative_iou,
        int(low_quality_matches),
        torch.get_num_threads(),
        positive_NA.data_ptr(),
        ignored_NA.data_ptr(),
        labels_NA.data_ptr(),
        boxes_NA4.data_ptr(),
        matched_NA.data_ptr(),
    )
    return AnchorTargets(
        positive_NA=positive_NA, ignored_NA=ignored_NA, labels_NA=labels_NA, boxes_NA4=boxes_NA4, matched_NA=matched_NA
    )
