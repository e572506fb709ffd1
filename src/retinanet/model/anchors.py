"""Anchors: reference boxes at every position of every feature level, xyxy, input pixels.

Shape suffixes: A anchors of all levels, C anchors per position, H, W.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.config import ModelConfig

MAX_STORED: Final = 16
"""Number of image sizes whose anchors a generator stores. At 800 x 1344 pixels, the anchors of one size take 3 MB."""


class AnchorGenerator(nn.Module):
    """Compute the anchors of a batch from the sizes of its feature maps.

    Level l has the stride 2^l. Only the style "torchvision" infers strides from the input size. The centre of row i and
    column j is (j, i) x stride, without an offset, as in torchvision and Detectron2. The anchors of a position are
    ordered by ratio, then by scale.
    Source: arXiv 1708.02002, section 4 "Anchors".
    """

    def __init__(self, *, config: ModelConfig) -> None:
        super().__init__()
        self.strides = tuple(2**level for level in config.levels)
        self.style = config.anchor_style
        self.cells = [
            cell_anchors(size, scales=config.anchor_scales, ratios=config.anchor_ratios, style=self.style)
            for size in config.anchor_sizes
        ]
        self._stored: dict[Any, tuple[Tensor, tuple[int, ...]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickling, without the stored anchors."""
        return {**super().__getstate__(), "_stored": {}}  # type: ignore[no-untyped-call]

    def forward(
        self, sizes: Sequence[tuple[int, int]], *, like: Tensor, input_size: tuple[int, int] | None = None
    ) -> tuple[Tensor, tuple[int, ...]]:
        """Return anchors_A4, float32, and the number of anchors of each level.

        The anchors of the last `MAX_STORED` image sizes are stored, because computing them takes about 40 kernels.

        Args:
            sizes: (height, width) of each level's feature map.
            like: tensor whose device the anchors are put on.
            input_size: (height, width) of the padded images, pixels. Only the style "torchvision" needs it.

        Raises:
            ValueError: the style is "torchvision" and `input_size` is None.
        """
        if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
            return self._compute(sizes, like.device, input_size)
        key = (tuple(sizes), like.device, input_size)
        found = self._stored.get(key)
        if found is None:
            with torch.inference_mode(False):  # a stored inference tensor could not be used in training
                found = self._compute(sizes, like.device, input_size)
            self._stored = dict([*self._stored.items(), (key, found)][-MAX_STORED:])
        return found

    def _compute(
        self, sizes: Sequence[tuple[int, int]], device: torch.device, input_size: tuple[int, int] | None
    ) -> tuple[Tensor, tuple[int, ...]]:
        levels = []
        for (height, width), (stride_y, stride_x), cell_C4 in zip(
            sizes, self._strides(sizes, input_size), self.cells, strict=True
        ):
            x = torch.arange(width, device=device, dtype=torch.float32) * stride_x
            y = torch.arange(height, device=device, dtype=torch.float32) * stride_y
            y_HW, x_HW = torch.meshgrid(y, x, indexing="ij")
            centres_HW14 = torch.stack([x_HW, y_HW, x_HW, y_HW], dim=-1).unsqueeze(2)
            levels.append((centres_HW14 + cell_C4.to(device, non_blocking=True)).reshape(-1, 4))
        # shape[0] instead of len(): torch.export would make len() a constant.
        return torch.cat(levels), tuple(level.shape[0] for level in levels)

    def _strides(
        self, sizes: Sequence[tuple[int, int]], input_size: tuple[int, int] | None
    ) -> Sequence[tuple[int, int]]:
        """Return the vertical and the horizontal stride of each level, pixels."""
        if self.style == "exact":
            return [(stride, stride) for stride in self.strides]
        if input_size is None:
            raise ValueError("anchor_style torchvision needs input_size, the (height, width) of the images, found None")
        # At 800 x 1344 pixels, P7 has 7 x 11 positions, not 6.25 x 10.5: strides 114 and 122 instead of 128.
        return [(input_size[0] // height, input_size[1] // width) for height, width in sizes]


def cell_anchors(size: float, *, scales: Sequence[float], ratios: Sequence[float], style: str = "exact") -> Tensor:
    """Return the anchors of one position, centred at (0, 0): float32 (C, 4), xyxy, input pixels.

    An anchor has the area (size x scale)^2, and its ratio is height / width. In the style "torchvision", size x scale
    is truncated to an integer, and the corners are rounded to whole pixels, halves to even.
    """
    rows = []
    if style == "torchvision":
        size, scales = 1, [int(size * scale) for scale in scales]
    for ratio in ratios:
        for scale in scales:
            half_width = size * scale / math.sqrt(ratio) / 2
            half_height = size * scale * math.sqrt(ratio) / 2
            rows.append([-half_width, -half_height, half_width, half_height])
    cells_C4 = torch.tensor(
        rows, dtype=torch.float32, device="cpu"
    )  # on the CPU even in a `torch.device("meta")` block
    return cells_C4.round() if style == "torchvision" else cells_C4
