"""Backbone: `--backbone retinanet_extras.backbone:SmallBackbone`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def _halve(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


class SmallBackbone(nn.Module):
    """Halve the resolution with one convolution per stage. images_N3HW -> one feature map per stride, finest first."""

    def __init__(self, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.channels = [min(32, stride * 2) for stride in self.strides]
        stages: list[nn.Module] = []
        width, stride = 3, 1
        while stride < self.strides[-1]:
            stride *= 2
            stages.append(_halve(width, min(32, stride * 2)))
            width = min(32, stride * 2)
        self.stages = nn.ModuleList(stages)

    def forward(self, images_N3HW: Tensor) -> list[Tensor]:
        maps, x, stride = [], images_N3HW, 1
        for stage in self.stages:
            x, stride = stage(x), stride * 2
            if stride in self.strides:
                maps.append(x)
        return maps
