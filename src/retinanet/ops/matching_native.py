"""Matching of anchors and ground-truth boxes in C, for float32 tensors on the CPU: see native/matching.c.

Shape suffixes: N batch, A anchors, G ground-truth boxes of all images.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from retinanet.ops.native_library import address, available, buffer, call
from retinanet.types import AnchorTargets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.types import Target


def supports_match_native(anchors_A4: Tensor, targets: Sequence[Target]) -> bool:
    """Return whether `match_native` supports these inputs.

    It supports float32 anchors on the CPU and targets on the CPU. It requires the C library.
    """
    if anchors_A4.device.type != "cpu" or anchors_A4.dtype != torch.float32 or not targets:
        return False
    return all(target.boxes_G4.device.type == "cpu" for target in targets) and available()


def match_native(
    anchors_A4: Tensor,
    targets: Sequence[Target],
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality_matches: bool,
) -> AnchorTargets:
    """Match in C. The result equals that of `match_torch` bit for bit.

    Arguments and result are those of `retinanet.ops.matching.match`. The inputs must fulfil `supports_match_native`.

    Raises:
        RuntimeError: the C library is missing.
        TypeError: the anchors are not float32 on the CPU.
        ValueError: the targets have 2^31 or more boxes.
    """
    N, A = len(targets), len(anchors_A4)
    anchors_A4 = anchors_A4.detach().contiguous()
    boxes_G4 = torch.cat([target.boxes_G4.detach().to(torch.float32) for target in targets]).contiguous()
    labels_G = torch.cat([target.labels_G.to(torch.int64) for target in targets])
    crowd_G = torch.cat([target.crowd_G.to(torch.bool) for target in targets])
    starts = torch.tensor(
        list(accumulate((len(target.boxes_G4) for target in targets), initial=0)), dtype=torch.int64, device="cpu"
    )
    G = len(boxes_G4)
    if G >= 2**31:
        raise ValueError(f"expected fewer than 2^31 ground-truth boxes, found {G}")
    positive_NA, ignored_NA = buffer(N, A, dtype=torch.bool), buffer(N, A, dtype=torch.bool)
    labels_NA, matched_NA = buffer(N, A, dtype=torch.int64), buffer(N, A, dtype=torch.int64)
    boxes_NA4 = buffer(N, A, 4, dtype=torch.float32)
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
        address(positive_NA, name="positive", dtype=torch.bool, shape=(N, A)),
        address(ignored_NA, name="ignored", dtype=torch.bool, shape=(N, A)),
        address(labels_NA, name="labels", dtype=torch.int64, shape=(N, A)),
        address(boxes_NA4, name="target boxes", dtype=torch.float32, shape=(N, A, 4)),
        address(matched_NA, name="matched", dtype=torch.int64, shape=(N, A)),
    )
    return AnchorTargets(
        positive_NA=positive_NA, ignored_NA=ignored_NA, labels_NA=labels_NA, boxes_NA4=boxes_NA4, matched_NA=matched_NA
    )
