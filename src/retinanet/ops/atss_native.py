"""Assignment by ATSS in C, for tensors on the CPU: see native/atss.c.

Shape suffixes: N batch, A anchors, G ground-truth boxes of all images, L levels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from retinanet.ops.assignment import box_batch, claimed_targets, joined
from retinanet.ops.native_library import address, available, buffer, call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.types import AnchorTargets, Target


def supports_atss_native(anchors_A4: Tensor, targets: Sequence[Target]) -> bool:
    """Return whether `atss_native` supports these inputs: anchors and targets on the CPU, and a loaded C library."""
    if anchors_A4.device.type != "cpu" or not targets:
        return False
    return all(target.boxes_G4.device.type == "cpu" for target in targets) and available()


def atss_native(
    anchors_A4: Tensor,
    targets: Sequence[Target],
    *,
    positions: Sequence[tuple[int, int]],
    candidates: int,
    crowd_share: float,
    low_quality_matches: bool,
) -> AnchorTargets:
    """Assign by ATSS in C. Arguments and result are those of `retinanet.ops.atss_torch.atss_torch`.

    Raises:
        RuntimeError: the C library is missing.
        TypeError: a tensor is not on the CPU.
        ValueError: 2^31 or more anchors or boxes, or `positions` of another number of anchors.
    """
    N, A = len(targets), len(anchors_A4)
    if sum(P * C for P, C in positions) != A or any(P < 0 or C < 1 for P, C in positions) or candidates < 1:
        raise ValueError(
            f"expected positions of {A} anchors and at least one candidate, found {positions}, {candidates}"
        )
    anchors_32_A4 = anchors_A4.detach().to(torch.float32).contiguous()
    boxes_G4, crowd_G, starts_N = joined(targets)
    G, L = len(boxes_G4), len(positions)
    if max(A, G) >= 2**31:
        raise ValueError(f"expected fewer than 2^31 anchors and boxes, found {A} anchors and {G} boxes")
    positions_L2 = torch.tensor(positions, dtype=torch.int64, device="cpu").reshape(L, 2)
    claims_NA = buffer(N, A, dtype=torch.int64)
    call(
        "rn_atss",
        address(anchors_32_A4, name="anchors", dtype=torch.float32, shape=(A, 4)),
        A,
        address(boxes_G4, name="boxes", dtype=torch.float32, shape=(G, 4)),
        address(crowd_G, name="crowd", dtype=torch.bool, shape=(G,)),
        address(starts_N, name="starts", dtype=torch.int64, shape=(N + 1,)),
        N,
        address(positions_L2, name="positions", dtype=torch.int64, shape=(L, 2)),
        L,
        candidates,
        int(low_quality_matches),
        torch.get_num_threads(),
        address(claims_NA, name="claims", dtype=torch.int64, shape=(N, A)),
    )
    return claimed_targets(claims_NA, box_batch(targets), anchors_A4, crowd_share=crowd_share)
