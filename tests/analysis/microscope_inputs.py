"""Random outputs of a network with known targets, for the tests of the loss microscope."""

from __future__ import annotations

import torch

from retinanet.analysis.loss_microscope import LossMicroscope
from retinanet.analysis.loss_microscope_meter import LossMicroscopeMeter
from retinanet.analysis.model_outputs import DenseBatch
from retinanet.config import LossConfig
from retinanet.data import Batch
from retinanet.images import Frame
from retinanet.types import AnchorTargets, HeadOutputs, Target

CLASSES = ("common", "rare", "unused")


def random_batch(seed: int, *, anchors: int = 400, indices: tuple[int, ...] = (0, 1)) -> DenseBatch:
    """Return outputs with objects of two classes, one of them rare; the last image has no object.

    Objects have wrong and right scores, and the background has easy and hard examples. Each object has 4 anchors.
    """
    generator = torch.Generator().manual_seed(seed)
    N, A, K, objects = len(indices), anchors, len(CLASSES), 20
    corner_A2 = torch.rand(A, 2, generator=generator) * 400
    anchors_A4 = torch.cat([corner_A2, corner_A2 + 20 + 60 * torch.rand(A, 2, generator=generator)], dim=1)
    logits_NAK = torch.randn(N, A, K, generator=generator) * 2 - 5
    labels_G = torch.tensor([1] + [0] * (objects - 1))
    positive_NA = torch.zeros(N, A, dtype=torch.bool)
    positive_NA[:-1, : 4 * objects] = True
    ignored_NA = torch.zeros(N, A, dtype=torch.bool)
    ignored_NA[:, 4 * objects : 4 * objects + 30] = True
    matched_NA = (torch.arange(A) // 4).repeat(N, 1) * positive_NA
    labels_NA = labels_G[matched_NA] * positive_NA
    n, a = torch.nonzero(positive_NA, as_tuple=True)
    logits_NAK[n, a, labels_NA[n, a]] += 5
    boxes_G4 = anchors_A4[: 4 * objects : 4]
    targets = [
        Target(boxes_G4=boxes_G4[:count], labels_G=labels_G[:count], crowd_G=torch.zeros(count, dtype=torch.bool))
        for count in [objects] * (N - 1) + [0]
    ]
    return DenseBatch(
        batch=Batch(
            images_N3HW=torch.zeros(N, 3, 8, 8),
            targets=tuple(targets),
            frames=(Frame(width=960, height=960, resized_width=480, resized_height=480),) * N,
            indices=indices,
        ),
        outputs=HeadOutputs(
            logits_NAK=logits_NAK,
            deltas_NA4=torch.randn(N, A, 4, generator=generator) * 0.1,
            anchors_A4=anchors_A4,
            anchors_per_level=(A,),
        ),
        targets=AnchorTargets(
            positive_NA=positive_NA,
            ignored_NA=ignored_NA,
            labels_NA=labels_NA,
            boxes_NA4=boxes_G4[matched_NA] * positive_NA[..., None],
            matched_NA=matched_NA,
        ),
    )


def measured(batches: list[DenseBatch], config: LossConfig | None = None, easy_from: float = 0.5) -> LossMicroscope:
    """Return the microscope of batches."""
    meter = LossMicroscopeMeter(classes=CLASSES, loss_config=config or LossConfig(), easy_from=easy_from)
    for batch in batches:
        meter.add(batch)
    return meter.result()
