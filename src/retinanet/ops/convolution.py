"""3x3 convolutions in C with 2.25 times fewer multiplications than taking them as they are written (Winograd's).

Shape suffixes: N batch, H, W; I input and O output channels; T tiles of 2x2 outputs.
Source: Lavin and Gray, arXiv 1509.09308, section 4.1: F(2x2, 3x3).
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from retinanet.ops.native_library import address, available, call, instruction_set

_PANEL: Final = 32
"""PANEL of winograd.c."""
_FEWEST_TILES: Final = 28
"""Below it, reading 16 numbers per kernel instead of 9 costs more than the multiplications that are saved."""
_FEWEST_CHANNELS: Final = 32


def can_convolve(weight_OI33: Tensor) -> bool:
    """Whether kernels of this shape and type are taken, and the library has vector instructions for them here."""
    O, I = weight_OI33.shape[:2]  # noqa: E741
    fits = weight_OI33.shape[2:] == (3, 3) and I % 16 == 0 and min(O, I) >= _FEWEST_CHANNELS
    plain = weight_OI33.device.type == "cpu" and weight_OI33.dtype == torch.float32
    return fits and plain and available() and instruction_set() != "baseline"


class Winograd:
    """A convolution with 3x3 kernels, stride 1 and zeros around the picture, then perhaps a limit. Float32, CPU.

    Rounds no worse than the sum of products that it stands for. What it returns does not depend on the number of
    threads, and a tile that is computed alone is what it is among all.

    Args:
        weight_OI33: kernels that `can_convolve`; copied.
        bias_O: added to the outputs; copied.
        low: outputs below become it.
        high: outputs above become it. NaN stays NaN.
    """

    def __init__(
        self, weight_OI33: Tensor, bias_O: Tensor | None = None, *, low: float = -math.inf, high: float = math.inf
    ) -> None:
        self.out, self.channels = weight_OI33.shape[:2]
        self.low, self.high = low, high
        panels = -(-self.out // _PANEL)
        weight_OI33 = weight_OI33.detach().contiguous()
        self._weights = torch.empty(16 * panels * self.channels * _PANEL)
        call(
            "rn_winograd_weights",
            address(weight_OI33, name="weight", dtype=torch.float32, shape=(self.out, self.channels, 3, 3)),
            self.out,
            self.channels,
            self._weights.data_ptr(),
        )
        self._bias = torch.zeros(panels * _PANEL)
        if bias_O is not None:
            self._bias[: self.out] = bias_O.detach()

    def serves(self, x_NIHW: Tensor) -> bool:
        """Whether these inputs are taken: float32 in channels_last on the CPU, and large enough for it to pay."""
        N, channels, H, W = x_NIHW.shape
        plain = x_NIHW.device.type == "cpu" and x_NIHW.dtype == torch.float32 and self.channels == channels
        tiles = N * (H // 2) * (W // 2)
        return plain and tiles >= _FEWEST_TILES and x_NIHW.is_contiguous(memory_format=torch.channels_last)

    def __call__(self, x_NIHW: Tensor, tiles_T: Tensor | None = None) -> Tensor:
        """Return N x O x H x W in channels_last.

        Args:
            x_NIHW: what `serves` says yes to.
            tiles_T: int32, the tiles to be computed, numbered row by row, picture by picture (see `tiles_of`); all
                other outputs are 0. None: all.
        """
        N, _, H, W = x_NIHW.shape
        make = torch.empty if tiles_T is None else torch.zeros
        y_NHWO = make(N, H, W, self.out)
        x_NHWI = x_NIHW.permute(0, 2, 3, 1)
        call(
            "rn_winograd",
            address(x_NHWI, name="x", dtype=torch.float32, shape=(N, H, W, self.channels)),
            N,
            H,
            W,
            self.channels,
            self._weights.data_ptr(),
            self._bias.data_ptr(),
            self.out,
            self.low,
            self.high,
            0 if tiles_T is None else address(tiles_T, name="tiles", dtype=torch.int32, shape=(None,)),
            -1 if tiles_T is None else len(tiles_T),
            torch.get_num_threads(),
            y_NHWO.data_ptr(),
        )
        return y_NHWO.permute(0, 3, 1, 2)


def tiles_of(wanted_NHW: Tensor) -> Tensor:
    """Return the numbers of the tiles in which an output is wanted, int32, rising.

    Args:
        wanted_NHW: 1 where the output is wanted, else 0; float.
    """
    covered_N1HW = F.max_pool2d(wanted_NHW[:, None], 2, ceil_mode=True)
    return covered_N1HW.flatten().nonzero().flatten().to(torch.int32)
