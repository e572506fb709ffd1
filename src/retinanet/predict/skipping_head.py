"""A box head that computes offsets only around the positions with a score above the threshold.

Shape suffixes: N batch, A anchors, K classes, H, W of a level, T tiles.
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

_MAX_TILE_SHARE: Final = 0.8
"""Largest share of a level's tiles, over all layers, for which computing single tiles is faster than all tiles."""


class SkippingHead(nn.Module):
    """A box head that computes its values, in float32, only at the wanted positions.

    A value depends on inputs up to `depth` + 1 positions away. From the last layer to the first, the set of positions
    to compute therefore grows by one position per layer in each direction. Layers are 0 at all other positions, as in
    the padding. Winograd tiles also read some of these positions, with weights that cancel except for rounding.

    Args:
        head: box head whose layers are reused, see `supports`.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.values, self.hidden, self.output = head.values, head.hidden, head.output

    @staticmethod
    def supports(head: Head) -> bool:
        """Return whether all layers of a head are convolutions that can be computed tile by tile (no normalisation)."""
        layers = [*head.hidden, head.output.module]
        return all(isinstance(layer, PreparedConvolution) and layer.supports_tiles() for layer in layers)

    def forward(self, levels: Sequence[Tensor], wanted: Sequence[Tensor] | None = None) -> Tensor:
        """Return the values, (N, anchors of all levels, values of an anchor). Unwanted positions may be 0.

        Args:
            levels: feature maps.
            wanted: bool (N, H, W) for each level, True where values are needed; None: everywhere.
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
        if sum(map(len, tiles)) > _MAX_TILE_SHARE * len(layers) * N * -(-H // 2) * -(-W // 2):
            return self.output(self.hidden(x))  # type: ignore[no-any-return]
        for layer, tiles_T in zip(layers, reversed(tiles), strict=True):
            x = layer(x, tiles_T=tiles_T)
        return x


def positions_above(logits_NAK: Tensor, levels: Sequence[Tensor], above: float) -> list[Tensor]:
    """Return, for each level, where any class of any anchor has a logit higher than `above` or NaN: bool (N, H, W)."""
    sizes = [(m.shape[-2], m.shape[-1]) for m in levels]
    each = logits_NAK.shape[1] // sum(height * width for height, width in sizes)
    split = torch.split(logits_NAK, [height * width * each for height, width in sizes], dim=1)
    return [
        ~(of_level.reshape(len(of_level), height, width, -1).amax(dim=-1) <= above)
        for of_level, (height, width) in zip(split, sizes, strict=True)
    ]
