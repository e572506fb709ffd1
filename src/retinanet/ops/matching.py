"""Matching of anchors and ground-truth boxes.

`retinanet.matching` documents the rule and its source (Lin et al., arXiv 1708.02002, section 4). There are three forms:
C for float32 tensors on the CPU, Triton for float32 CUDA tensors, and torch otherwise. All forms return equal results,
bit for bit.

Shape suffixes: A anchors.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from retinanet.ops.matching_native import match_native, supports_match_native
from retinanet.ops.matching_torch import match_torch
from retinanet.ops.triton_check import triton_works
from retinanet.types import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.types import AnchorTargets


def match(
    anchors_A4: Tensor,
    targets: Sequence[Target],
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality_matches: bool,
) -> AnchorTargets:
    """Return whether each anchor of each image is positive, negative or ignored, and its matched ground-truth box.

    `retinanet.matching.match` documents the rule.

    Args:
        anchors_A4: anchors, xyxy, input pixels.
        targets: ground truth of each image, at least one image.
        positive_iou: smallest IoU with an object at which an anchor is positive.
        negative_iou: IoU below which an anchor is negative. An anchor between the two thresholds is ignored.
        low_quality_matches: whether the anchors with the highest IoU of each object are positive at any IoU above 0.

    Raises:
        ValueError: 2^31 or more boxes in the C or Triton form.
    """
    form = match_torch
    if supports_match_native(anchors_A4, targets):
        form = match_native
    elif supports_match_triton(anchors_A4, targets):
        form = match_triton
    return form(
        anchors_A4,
        targets,
        positive_iou=positive_iou,
        negative_iou=negative_iou,
        low_quality_matches=low_quality_matches,
    )


def supports_match_triton(anchors_A4: Tensor, targets: Sequence[Target]) -> bool:
    """Return whether `match_triton` supports these inputs.

    It supports float32 anchors and targets on the same CUDA device, but not `torch.compile`. It requires Triton.
    """
    if anchors_A4.device.type != "cuda" or anchors_A4.dtype != torch.float32 or torch.compiler.is_compiling():
        return False
    device = anchors_A4.device
    if any(x.device != device for target in targets for x in (target.boxes_G4, target.labels_G, target.crowd_G)):
        return False
    return triton_matches(device)


def match_triton(anchors_A4: Tensor, targets: Sequence[Target], **rule: Any) -> AnchorTargets:
    """Import and call the Triton form: see `retinanet.ops.matching_triton`."""
    # The import is here because Triton loads slowly and is not installed on every machine.
    from retinanet.ops import matching_triton as form

    return form.match_triton(anchors_A4, targets, **rule)


@functools.cache
def triton_matches(device: torch.device) -> bool:
    """Return whether Triton is installed and matches correctly on this CUDA device.

    The first call for a device matches four anchors with two boxes and stores the result for later calls.
    """

    def check() -> None:
        anchors = [[0, 0, 2, 2], [0, 0, 2, 1], [9, 9, 11, 11], [20, 20, 21, 22]]
        anchors_44 = torch.tensor(anchors, dtype=torch.float32, device=device)
        target = Target(
            boxes_G4=torch.tensor([[9, 9, 11, 11], [0, 0, 2, 2]], dtype=torch.float32, device=device),
            labels_G=torch.tensor([3, 7], dtype=torch.int64, device=device),
            crowd_G=torch.tensor([False, False], dtype=torch.bool, device=device),
        )
        rule = {"positive_iou": 0.6, "negative_iou": 0.4, "low_quality_matches": True}
        found = match_triton(anchors_44, [target], **rule)
        rows = torch.stack([found.positive_NA, found.ignored_NA, found.labels_NA, found.matched_NA]).tolist()
        expected = [[[1, 0, 1, 0]], [[0, 1, 0, 0]], [[7, 0, 3, 0]], [[1, 0, 0, 0]]]
        if rows != expected:
            raise RuntimeError(f"expected {expected}, found {rows}")

    return triton_works("matching", device, check)
