"""Task-aligned assignment in C, for tensors on the CPU: see native/task_aligned.c.

Shape suffixes: N batch, A anchors, K classes, G ground-truth boxes of all images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from retinanet.ops.assignment import box_batch, claimed_targets, joined
from retinanet.ops.native_library import address, available, buffer, call
from retinanet.ops.task_aligned_torch import CANDIDATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.types import AnchorTargets, Target


def supports_task_aligned_native(
    anchors_A4: Tensor, targets: Sequence[Target], predicted_NA4: Tensor, logits_NAK: Tensor | None
) -> bool:
    """Return whether `task_aligned_native` supports these inputs: all on the CPU, logits of at most 32 bits, and a
    loaded C library.
    """
    tensors = [anchors_A4, predicted_NA4, *(target.boxes_G4 for target in targets)]
    if logits_NAK is not None:
        tensors.append(logits_NAK)
        if logits_NAK.dtype == torch.float64:
            return False
    return bool(targets) and all(tensor.device.type == "cpu" for tensor in tensors) and available()


def task_aligned_native(
    anchors_A4: Tensor,
    targets: Sequence[Target],
    *,
    predicted_NA4: Tensor,
    logits_NAK: Tensor | None,
    crowd_share: float,
    low_quality_matches: bool,
) -> AnchorTargets:
    """Assign in C. Arguments and result are those of `retinanet.ops.task_aligned.task_aligned`.

    Raises:
        RuntimeError: the C library is missing.
        TypeError: a tensor is not on the CPU.
        ValueError: 2^31 or more anchors or boxes, or a label of an object outside 0..K-1.
    """
    N, A = len(targets), len(anchors_A4)
    K = 0 if logits_NAK is None else logits_NAK.shape[2]
    anchors_32_A4 = anchors_A4.detach().to(torch.float32).contiguous()
    predicted_NA4 = predicted_NA4.detach().to(torch.float32).contiguous()
    logits_32_NAK = None if logits_NAK is None else logits_NAK.detach().to(torch.float32).contiguous()
    boxes_G4, crowd_G, starts_N = joined(targets)
    labels_G = torch.cat([target.labels_G.to(torch.int64) for target in targets])
    G = len(boxes_G4)
    if max(A, G) >= 2**31:
        raise ValueError(f"expected fewer than 2^31 anchors and boxes, found {A} anchors and {G} boxes")
    if len(predicted_NA4) not in (1, N):
        raise ValueError(f"expected predicted boxes of 1 or {N} images, found {len(predicted_NA4)}")
    claims_NA = buffer(N, A, dtype=torch.int64)
    call(
        "rn_task_aligned",
        address(anchors_32_A4, name="anchors", dtype=torch.float32, shape=(A, 4)),
        A,
        address(predicted_NA4, name="predicted", dtype=torch.float32, shape=(None, A, 4)),
        len(predicted_NA4),
        None if logits_32_NAK is None else address(logits_32_NAK, name="logits", dtype=torch.float32, shape=(N, A, K)),
        K,
        address(boxes_G4, name="boxes", dtype=torch.float32, shape=(G, 4)),
        address(crowd_G, name="crowd", dtype=torch.bool, shape=(G,)),
        address(labels_G, name="labels", dtype=torch.int64, shape=(G,)),
        address(starts_N, name="starts", dtype=torch.int64, shape=(N + 1,)),
        N,
        CANDIDATES,
        int(low_quality_matches),
        torch.get_num_threads(),
        address(claims_NA, name="claims", dtype=torch.int64, shape=(N, A)),
    )
    return claimed_targets(claims_NA, box_batch(targets), anchors_A4, crowd_share=crowd_share)
