"""A box head that computes offsets only around the positions whose scores count.

N batch, A anchors, K classes, H, W of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.nn.functional as F
from torch import nn

from retinanet.ops.convolution import PreparedConvolution
from retinanet.ops.winograd import tiles_of

if TYPE_CHECKING:
    from torch import Tensor

    from retinanet.model.heads import Head

_MOST_TILES: Final = 0.8
"""The share of a level's tiles, over all layers, beyond which clearing memory for the others costs more than it saves.
"""


class SkippingHead(nn.Module):
    """A box head that works out its values only where they are wanted, and what they depend on. Float32.

    A value depends on the inputs up to `depth` + 1 positions away: the wanted positions grow by one with every layer,
    seen from the last. Elsewhere the layers are 0, as beyond the edge of the map. Winograd's tiles touch such positions
    too, with weights that cancel but for float32's rounding.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.values, self.hidden, self.output = head.values, head.hidden, head.output

    @staticmethod
    def can_be(head: Head) -> bool:
        """Whether all layers of a head are convolutions that can be worked out tile by tile: no norm over the map."""
        layers = [*head.hidden, head.output.module]
        return all(isinstance(layer, PreparedConvolution) and layer.supports_tiles() for layer in layers)

    def forward(self, levels: Sequence[Tensor], wanted: Sequence[Tensor] | None = None) -> Tensor:
        """Return (N, anchors of all levels, values), 0 at the positions that are not wanted.

        Args:
            levels: maps of the pyramid.
            wanted: bool (N, H, W) for each level; None: all positions.
        """
        rows = []
        for i, level in enumerate(levels):
            N, H, W = level.shape[0], level.shape[2], level.shape[3]
            out = self._level(level.float(), None if wanted is None else wanted[i])
            rows.append(out.view(N, -1, self.values, H, W).permute(0, 3, 4, 1, 2).reshape(N, -1, self.values))
        return torch.cat(rows, dim=1)

    def _level(self, x: Tensor, wanted_NHW: Tensor | None) -> Tensor:
        N, _, H, W = x.shape
        layers: list[Any] = [*self.hidden, self.output.module]
        if wanted_NHW is None or not layers[0].supports_tiles(x):
            return self.output(self.hidden(x))  # type: ignore[no-any-return]
        grown_NHW = wanted_NHW.float()
        tiles = [tiles_of(grown_NHW)]
        for _ in layers[1:]:
            grown_NHW = F.max_pool2d(grown_NHW, 3, stride=1, padding=1)
            tiles.append(tiles_of(grown_NHW))
        if sum(map(len, tiles)) > _MOST_TILES * len(layers) * N * -(-H // 2) * -(-W // 2):
            return self.output(self.hidden(x))  # type: ignore[no-any-return]
        for layer, tiles_T in zip(layers, reversed(tiles), strict=True):
            x = layer(x, tiles_T=tiles_T)
        return x


def positions_above(logits_NAK: Tensor, levels: Sequence[Tensor], above: float) -> list[Tensor]:
    """Return for each level where any class of any anchor has a logit above, or NaN: bool (N, H, W)."""
    sizes = [(m.shape[-2], m.shape[-1]) for m in levels]
    each = logits_NAK.shape[1] // sum(height * width for height, width in sizes)
    split = torch.split(logits_NAK, [height * width * each for height, width in sizes], dim=1)
    return [
        ~(of_level.reshape(len(of_level), height, width, -1).amax(dim=-1) <= above)
        for of_level, (height, width) in zip(split, sizes, strict=True)
    ]
