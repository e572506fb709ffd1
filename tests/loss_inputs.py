"""Network outputs and targets of one image with one positive anchor.

Shape suffixes: N batch, A anchors, K classes.
"""

from __future__ import annotations

import torch

from retinanet.types import AnchorTargets, HeadOutputs


def one_positive(logits: list[list[float]], deltas: list[float]) -> tuple[HeadOutputs, AnchorTargets]:
    """Return the outputs and targets of one image: anchor 0 is positive for class 0, all other anchors are negative.

    Args:
        logits: class logits of each anchor, (A, K).
        deltas: box offsets of every anchor, (4,).
    """
    A = len(logits)
    anchors_A4 = torch.tensor([[0.0, 0.0, 10.0, 10.0]] * A)
    outputs = HeadOutputs(
        logits_NAK=torch.tensor([logits]),
        deltas_NA4=torch.tensor([[deltas] * A]),
        anchors_A4=anchors_A4,
        anchors_per_level=(A,),
    )
    positive_NA = torch.tensor([[True] + [False] * (A - 1)])
    zeros_NA = torch.zeros(1, A, dtype=torch.int64)
    targets = AnchorTargets(
        positive_NA=positive_NA,
        ignored_NA=torch.zeros_like(positive_NA),
        labels_NA=zeros_NA,
        boxes_NA4=anchors_A4[None],
        matched_NA=zeros_NA,
    )
    return outputs, targets
