"""Assigner: `--assigner retinanet_extras.assigner:TopKAssigner`.

Shape suffixes: N batch, A anchors, G ground-truth boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from retinanet.matching import Assigner
from retinanet.types import AnchorTargets, Target


class TopKAssigner(Assigner):
    """Assign each object to the `k` anchors with the highest IoU. All other anchors are negative."""

    def __init__(self, k: int = 9) -> None:
        self.k = k

    def __call__(
        self, anchors_A4: Tensor, targets: Sequence[Target], *, anchors_per_level: Sequence[int]
    ) -> AnchorTargets:
        positive, matched, labels, boxes = [], [], [], []
        for target in targets:
            positive_A = torch.zeros(len(anchors_A4), dtype=torch.bool, device=anchors_A4.device)
            matched_A = torch.zeros(len(anchors_A4), dtype=torch.int64, device=anchors_A4.device)
            for index in torch.nonzero(~target.crowd_G).flatten().tolist():
                iou_A = box_iou(anchors_A4, target.boxes_G4[index : index + 1].to(anchors_A4))[:, 0]
                best = torch.where(positive_A, 0, iou_A).topk(self.k).indices
                positive_A[best], matched_A[best] = True, index
            labels_A, boxes_A4 = torch.zeros_like(matched_A), torch.zeros_like(anchors_A4)
            labels_A[positive_A] = target.labels_G[matched_A[positive_A]]
            boxes_A4[positive_A] = target.boxes_G4[matched_A[positive_A]].to(anchors_A4)
            for column, value in zip(
                (positive, matched, labels, boxes), (positive_A, matched_A, labels_A, boxes_A4), strict=True
            ):
                column.append(value)
        positive_NA = torch.stack(positive)
        return AnchorTargets(
            positive_NA=positive_NA,
            ignored_NA=torch.zeros_like(positive_NA),
            labels_NA=torch.stack(labels),
            boxes_NA4=torch.stack(boxes),
            matched_NA=torch.stack(matched),
        )
