"""Measure a `LossMicroscope` batch by batch.

Memory does not grow with the number of images: a histogram for each class, and a bounded pool of places.

Boxes are xyxy. Shape suffixes: N batch, A anchors, K classes, P positive anchors, C background candidates, R places of
an image, M kept anchors, G groups of examples (K classes, hard background, easy background), B bins.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
import torch.nn.functional as F

from retinanet.analysis.class_balance import rare_classes
from retinanet.analysis.gradient_places import PlacePool, background_places, object_places
from retinanet.analysis.loss_microscope import (
    BINS_PER_UNIT,
    HIGHEST,
    LOWEST,
    Group,
    LossMicroscope,
    LossRow,
    Sums,
)
from retinanet.losses import make_classification_loss
from retinanet.types import AnchorTargets, HeadOutputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import Tensor

    from retinanet.analysis.model_outputs import DenseBatch
    from retinanet.config import LossConfig

    Floats = npt.NDArray[np.float64]

MINED: Final = ("hard_negative_mining", "ohem")
"""Losses with hard example mining that the microscope compares."""
CHUNK: Final = 1_000_000
"""Number of logits that are binned at once, which bounds the memory of temporary arrays."""
DECIMALS: Final = 5
"""Decimals of the mean logit of a bin. They change a loss by at most 0.003 %."""


class LossMicroscopeMeter:
    """Sums up the outputs of any number of batches in constant memory.

    Args:
        classes: name of each class id.
        loss_config: the loss of training. Its options apply to the losses with hard example mining.
        easy_from: minimum p_t of an easy example, in (0, 1).
    """

    def __init__(self, *, classes: Sequence[str], loss_config: LossConfig, easy_from: float = 0.5) -> None:
        if not 0 < easy_from < 1:
            raise ValueError(f"expected easy_from between 0 and 1, found {easy_from}")
        self.classes = tuple(classes)
        self.loss_config = loss_config
        self.easy_from = easy_from
        self._hard_above = math.log((1 - easy_from) / easy_from)  # minimum wrong logit of a hard example
        self._mining = {name: make_classification_loss(dataclasses.replace(loss_config, loss=name)) for name in MINED}
        G, B = len(self.classes) + 2, round((HIGHEST - LOWEST) * BINS_PER_UNIT)
        self._count_GB, self._logit_GB = np.zeros((G, B), dtype=np.int64), np.zeros((G, B))
        self._mined = {name: np.zeros((3, G)) for name in MINED}
        self._mined_examples = dict.fromkeys(MINED, 0)
        self._objects_K = np.zeros(len(self.classes), dtype=np.int64)
        self._images = 0
        self._pools = (PlacePool(), PlacePool())

    def add(self, dense: DenseBatch) -> None:
        """Add a batch."""
        for n, index in enumerate(dense.batch.indices):
            image = dense.batch.targets[n]
            outputs = HeadOutputs(
                logits_NAK=dense.outputs.logits_NAK[n : n + 1].detach().float(),
                deltas_NA4=dense.outputs.deltas_NA4[n : n + 1].detach(),
                anchors_A4=dense.outputs.anchors_A4,
                anchors_per_level=dense.outputs.anchors_per_level,
            )
            fields = (field.name for field in dataclasses.fields(AnchorTargets))
            targets = AnchorTargets(**{name: getattr(dense.targets, name)[n : n + 1] for name in fields})
            labels_G = image.labels_G[~image.crowd_G]
            self._objects_K += torch.bincount(labels_G, minlength=len(self.classes)).cpu().numpy()
            self._images += 1
            self._add_examples(outputs, targets)
            self._add_mined(outputs, targets)
            context = (index, outputs, targets, image, dense.batch.frames[n])
            self._pools[0].add(object_places(*context))
            self._pools[1].add(background_places(*context))

    def _add_examples(self, outputs: HeadOutputs, targets: AnchorTargets) -> None:
        """Count the wrong logits of all examples of an image in the bins of their groups."""
        logits_AK, K = outputs.logits_NAK[0], len(self.classes)
        a = torch.nonzero(targets.positive_NA[0]).squeeze(1)
        k = targets.labels_NA[0, a]
        self._add_logits(-logits_AK[a, k], k)
        used_AK = (~targets.ignored_NA[0])[:, None].repeat(1, K)
        used_AK[a, k] = False
        negatives = logits_AK[used_AK]
        for part in torch.split(negatives, CHUNK):
            self._add_logits(part, K + (part <= self._hard_above).long())

    def _add_logits(self, wrong: Tensor, group: Tensor) -> None:
        G, B = self._count_GB.shape
        wrong = wrong.double()
        bins = ((wrong - LOWEST) * BINS_PER_UNIT).floor().clamp(0, B - 1).long() + B * group
        self._count_GB += torch.bincount(bins, minlength=G * B).cpu().numpy().reshape(G, B)
        self._logit_GB += torch.bincount(bins, weights=wrong, minlength=G * B).cpu().numpy().reshape(G, B)

    def _add_mined(self, outputs: HeadOutputs, targets: AnchorTargets) -> None:
        """Add the cross-entropy of the anchors that each loss with hard example mining keeps of an image."""
        logits_AK, K = outputs.logits_NAK[0], len(self.classes)
        a = torch.nonzero(targets.positive_NA[0]).squeeze(1)
        k = targets.labels_NA[0, a]
        loss_A = F.softplus(logits_AK).sum(dim=1)
        loss_A = loss_A.index_add(0, a, -logits_AK[a, k])  # softplus(-x) = softplus(x) - x
        for name, loss in self._mining.items():
            kept_M = torch.nonzero(loss.keep(loss_A[None], outputs, targets)[0]).squeeze(1)
            wrong_MK = logits_AK[kept_M].double()
            group_MK = K + (wrong_MK <= self._hard_above).long()
            own_M = torch.nonzero(targets.positive_NA[0, kept_M]).squeeze(1)
            label_M = targets.labels_NA[0, kept_M[own_M]]
            wrong_MK[own_M, label_M] *= -1
            group_MK[own_M, label_M] = label_M
            gradient_MK = torch.sigmoid(wrong_MK)
            for i, values_MK in enumerate((F.softplus(wrong_MK), gradient_MK, gradient_MK**2)):
                sums_G = torch.bincount(group_MK.flatten(), weights=values_MK.flatten(), minlength=K + 2)
                self._mined[name][i] += sums_G.cpu().numpy()
            self._mined_examples[name] += wrong_MK.numel()

    def result(self) -> LossMicroscope:
        """Return the measurement of all batches that were added."""
        K = len(self.classes)
        rare_K = rare_classes(self._objects_K.tolist())
        used_G = [g for g in range(K + 2) if g >= K or self._count_GB[g].any()]
        groups = []
        for g in used_G:
            used_B = np.flatnonzero(self._count_GB[g])
            count_B = self._count_GB[g, used_B]
            logit_B = np.round(self._logit_GB[g, used_B] / count_B, DECIMALS)
            if g < K:
                name, kind = self.classes[g], "rare objects" if rare_K[g] else "objects"
            else:
                name = kind = "hard background" if g == K else "easy background"
            groups.append(Group(name=name, kind=kind, logit_B=logit_B, count_B=count_B))  # type: ignore[arg-type]
        mined = [
            LossRow(
                name={"hard_negative_mining": "hard negative mining (SSD)", "ohem": "OHEM"}[name],
                sums=Sums(*self._mined[name][:, used_G].copy()),
                examples=self._mined_examples[name],
            )
            for name in MINED
        ]
        return LossMicroscope(
            classes=self.classes,
            images=self._images,
            easy_from=self.easy_from,
            loss_config=self.loss_config,
            objects_K=self._objects_K.copy(),
            groups=tuple(groups),
            mined=tuple(mined),
            places=tuple(place for pool in self._pools for place in pool.places()),
        )
