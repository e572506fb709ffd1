"""3x3 convolutions in C by Winograd's F(2x2, 3x3), with 2.25 times fewer multiplications than the direct sum.

The outputs are computed in tiles of 2x2, each from a tile of 4x4 inputs with 16 instead of 36 multiplications.

Shape suffixes: N batch, H height, W width, I input channels, O output channels, T tiles of 2x2 outputs.
Source: Lavin and Gray, arXiv 1509.09308, section 4.1.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from retinanet.ops.native_library import address, available, buffer, call, instruction_set

_PANEL: Final = 32
"""Number of output channels in a block of the transformed weights; equals PANEL in native/winograd.c."""
_FEWEST_TILES: Final = 28
"""Smallest number of tiles of an input. With fewer tiles, reading 16 instead of 9 numbers per kernel takes longer than
the saved multiplications."""
_FEWEST_CHANNELS: Final = 32
"""Smallest number of input channels and of output channels."""


def supports_winograd(weight_OI33: Tensor) -> bool:
    """Return whether `Winograd` supports these kernels.

    It supports float32 kernels of 3x3 on the CPU with at least 32 output channels, and a multiple of 16 input channels,
    at least 32. It requires the C library and a processor with AVX2 or AVX-512.
    """
    O, I = weight_OI33.shape[:2]  # noqa: E741
    fits = weight_OI33.shape[2:] == (3, 3) and I % 16 == 0 and min(O, I) >= _FEWEST_CHANNELS
    plain = weight_OI33.device.type == "cpu" and weight_OI33.dtype == torch.float32
    return fits and plain and available() and instruction_set() != "baseline"


class Winograd:
    """Convolution with 3x3 kernels, stride 1, padding 1 and clamped outputs, for float32 tensors on the CPU.

    The rounding error is no larger than that of the direct sum. The outputs do not depend on the number of threads. A
    tile that is computed alone equals the tile that is computed with all others, bit for bit.

    Args:
        weight_OI33: kernels that `supports_winograd` accepts. They are copied.
        bias_O: numbers added to the output channels. They are copied.
        low: lower bound to which outputs are clamped; NaN stays NaN.
        high: upper bound to which outputs are clamped; NaN stays NaN.

    Raises:
        TypeError: the weights are not float32 on the CPU.
        ValueError: the bias does not have one number for each output channel.
    """

    def __init__(
        self, weight_OI33: Tensor, bias_O: Tensor | None = None, *, low: float = -math.inf, high: float = math.inf
    ) -> None:
        self.out, self.channels = weight_OI33.shape[:2]
        self.low, self.high = low, high
        panels = -(-self.out // _PANEL)
        weight_OI33 = weight_OI33.detach().contiguous()
        self._weights = buffer(16 * panels * self.channels * _PANEL, dtype=torch.float32)
        call(
            "rn_winograd_weights",
            address(weight_OI33, name="weight", dtype=torch.float32, shape=(self.out, self.channels, 3, 3)),
            self.out,
            self.channels,
            address(self._weights, name="weights", dtype=torch.float32, shape=(16 * panels * self.channels * _PANEL,)),
        )
        self._bias = buffer(panels * _PANEL, dtype=torch.float32).zero_()
        if bias_O is not None:
            if bias_O.shape != (self.out,):
                raise ValueError(f"bias: expected shape {(self.out,)}, found {tuple(bias_O.shape)}")
            self._bias[: self.out] = bias_O.detach()

    def supports(self, x_NIHW: Tensor) -> bool:
        """Return whether this input is supported: float32, channels_last, on the CPU, with at least 28 tiles."""
        N, channels, H, W = x_NIHW.shape
        plain = x_NIHW.device.type == "cpu" and x_NIHW.dtype == torch.float32 and self.channels == channels
        tiles = N * (H // 2) * (W // 2)
        return plain and tiles >= _FEWEST_TILES and x_NIHW.is_contiguous(memory_format=torch.channels_last)

    def __call__(self, x_NIHW: Tensor, tiles_T: Tensor | None = None) -> Tensor:
        """Return the outputs, (N, O, H, W) in channels_last.

        Args:
            x_NIHW: input that `supports` accepts.
            tiles_T: int32 indices of the tiles to compute, counted along rows and then over images (see `tiles_of`).
                All other outputs are 0. None: all tiles.

        Raises:
            TypeError: the input or the tiles have another type or device.
            ValueError: the input has another memory layout, or a tile index does not exist.
        """
        N, _, H, W = x_NIHW.shape
        panels = -(-self.out // _PANEL)
        y_NHWO = buffer(N, H, W, self.out, dtype=torch.float32)
        if tiles_T is not None:
            y_NHWO.zero_()
        x_NHWI = x_NIHW.permute(0, 2, 3, 1)
        call(
            "rn_winograd",
            address(x_NHWI, name="x", dtype=torch.float32, shape=(N, H, W, self.channels)),
            N,
            H,
            W,
            self.channels,
            address(self._weights, name="weights", dtype=torch.float32, shape=(16 * panels * self.channels * _PANEL,)),
            address(self._bias, name="bias", dtype=torch.float32, shape=(panels * _PANEL,)),
            self.out,
            self.low,
            self.high,
            0 if tiles_T is None else address(tiles_T, name="tiles", dtype=torch.int32, shape=(None,)),
            -1 if tiles_T is None else len(tiles_T),
            torch.get_num_threads(),
            address(y_NHWO, name="y", dtype=torch.float32, shape=(N, H, W, self.out)),
        )
        return y_NHWO.permute(0, 3, 1, 2)


def tiles_of(wanted_NHW: Tensor) -> Tensor:
    """Return the indices of the tiles that contain a wanted output, int32, in ascending order.

    Args:
        wanted_NHW: float mask, 1 at outputs to compute, else 0.
    """
    covered_N1HW = F.max_pool2d(wanted_NHW[:, None], 2, ceil_mode=True)
    return covered_N1HW.flatten().nonzero().flatten().to(torch.int32)
