"""A user's own losses, assigners and backbones, named by `tests.outside_parts:Name`, and invalid ones.

Shape suffixes: N batch, A anchors, P positive anchors, G ground-truth boxes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retinanet.losses import BoxLoss, ClassificationLoss, FocalLoss
from retinanet.matching import Assigner
from retinanet.types import AnchorTargets, Target


class LinearLoss(ClassificationLoss):
    """Return factor * alpha * |t - p|. The option `alpha` sets `alpha`; `factor` is not an option."""

    label = "linear"

    def __init__(self, alpha: float, factor: float = 2.0) -> None:
        self.alpha, self.factor = alpha, factor

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        return self.factor * self.alpha * (targets - logits.float().sigmoid()).abs()


class DoubledFocal(FocalLoss):
    """Return twice the focal loss. The fused kernels, which compute the plain focal loss, must not replace it."""

    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        return 2 * super().__call__(logits, targets, classes)


class DeltaNorm(BoxLoss):
    """Return the sum of the absolute offsets, for any box."""

    def __call__(self, deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
        return deltas_P4.float().abs().sum(-1)


class CentreAssigner(Assigner):
    """Assign each anchor to the first object that contains its centre. Ignore the `skipped` finest levels."""

    def __init__(self, skipped: int = 0) -> None:
        self.skipped = skipped

    def __call__(
        self, anchors_A4: Tensor, targets: Sequence[Target], *, anchors_per_level: Sequence[int]
    ) -> AnchorTargets:
        centre_A2 = (anchors_A4[:, :2] + anchors_A4[:, 2:]) / 2
        N, A = len(targets), len(anchors_A4)
        positive_NA = torch.zeros(N, A, dtype=torch.bool)
        labels_NA, matched_NA = torch.zeros(N, A, dtype=torch.int64), torch.zeros(N, A, dtype=torch.int64)
        boxes_NA4 = torch.zeros(N, A, 4)
        for n, target in enumerate(targets):
            for g in range(len(target.boxes_G4) - 1, -1, -1):
                box_4 = target.boxes_G4[g]
                inside_A = ((centre_A2 >= box_4[:2]) & (centre_A2 < box_4[2:])).all(1)
                positive_NA[n] |= inside_A
                labels_NA[n, inside_A], matched_NA[n, inside_A] = target.labels_G[g], g
                boxes_NA4[n, inside_A] = box_4
        ignored_NA = torch.zeros_like(positive_NA)
        ignored_NA[:, : sum(anchors_per_level[: self.skipped])] = True
        return AnchorTargets(
            positive_NA=positive_NA & ~ignored_NA,
            ignored_NA=ignored_NA,
            labels_NA=labels_NA,
            boxes_NA4=boxes_NA4,
            matched_NA=matched_NA,
        )


class Strided(nn.Module):
    """Backbone with one strided convolution per feature map."""

    mean, std = (0.1, 0.2, 0.3), (1.0, 1.0, 1.0)

    def __init__(self, strides: Sequence[int], width: int, levels: Sequence[int] = ()) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.channels = tuple(width * (i + 1) for i in range(len(strides)))
        self.steps = nn.ModuleList()
        before, stride_before = 3, 1
        for channels, stride in zip(self.channels, strides, strict=True):
            step = stride // stride_before
            self.steps.append(nn.Conv2d(before, channels, step, stride=step, padding=0))
            before, stride_before = channels, stride

    def forward(self, images_N3HW: Tensor) -> list[Tensor]:
        maps, x = [], images_N3HW
        for step in self.steps:
            x = step(nn.functional.pad(x, (0, -x.shape[3] % step.stride[1], 0, -x.shape[2] % step.stride[0]))).relu()
            maps.append(x)
        return maps

    def load_pretrained(self) -> None:
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.01)


def strided(strides: Sequence[int], levels: Sequence[int], width: int = 4) -> nn.Module:
    return Strided(strides, width, levels)


def no_channels(strides: Sequence[int]) -> nn.Module:
    return nn.Identity()


def too_coarse(strides: Sequence[int]) -> nn.Module:
    return Strided([2 * stride for stride in strides], 4)


def from_stride_8(strides: Sequence[int]) -> nn.Module:
    return Strided((8, 16, 32), 4)


def broken(strides: Sequence[int]) -> nn.Module:
    body = Strided(strides, 4)
    body.forward = lambda images: 1 / 0  # type: ignore[method-assign,assignment]
    return body


def no_module(strides: Sequence[int]) -> str:
    return "map"


class NeedsMore(BoxLoss):
    def __init__(self, betta: float) -> None:
        self.betta = betta

    def __call__(self, deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
        return deltas_P4


class Unfinished(Assigner):
    pass
