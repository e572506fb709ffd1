"""Feature pyramid (Lin et al., arXiv 1612.03144) with RetinaNet's coarse levels (arXiv 1708.02002, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class FeaturePyramid(nn.Module):
    """Turn the backbone's feature maps into feature levels of one width, and add coarser levels.

    Args:
        channels: number of channels of each backbone map, finest map first.
        width: number of channels of every level.
        num_coarse: number of added levels. Each is a 3x3 convolution with stride 2 of the level before it.
        coarse_from: input of the first added level: "c5", the backbone's last map, or "p5", the pyramid's level P5.
        first_map: index of the backbone map of the finest level. Finer maps are not used.
        num_outputs: number of backbone maps that become levels. Coarser maps only add to these levels from above.
            Default: all maps from `first_map`. Added levels need all these maps.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        width: int,
        num_coarse: int,
        coarse_from: str,
        first_map: int = 0,
        num_outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.coarse_from = coarse_from
        self.first_map = first_map
        used = channels[first_map:]
        outputs = len(used) if num_outputs is None else num_outputs
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in used)
        self.output = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(outputs))
        first = channels[-1] if coarse_from == "c5" else width
        self.coarse = nn.ModuleList(
            nn.Conv2d(first if i == 0 else width, width, 3, stride=2, padding=1) for i in range(num_coarse)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the feature levels, finest first."""
        merged = [lateral(m) for lateral, m in zip(self.lateral, maps[self.first_map :], strict=True)]
        for i in range(len(merged) - 2, -1, -1):
            above = F.interpolate(merged[i + 1], size=merged[i].shape[-2:], mode="nearest")
            merged[i] = merged[i] + above
        levels = [output(m) for output, m in zip(self.output, merged[: len(self.output)], strict=True)]
        coarse = maps[-1] if self.coarse_from == "c5" else levels[-1]
        for i, convolution in enumerate(self.coarse):
            # The paper applies a ReLU between P6 and P7.
            coarse = convolution(coarse if i == 0 else F.relu(coarse))
            levels.append(coarse)
        return levels
