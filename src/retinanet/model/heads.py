"""The classification head and the box head, shared by all feature levels (arXiv 1708.02002, section 4 and figure 3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Head(nn.Module):
    """Predict `values` numbers for each anchor, with `depth` hidden 3x3 convolutions and one output convolution.

    Args:
        in_channels: number of channels of the feature levels.
        width: number of channels of the hidden convolutions.
        depth: number of hidden convolutions.
        norm: "none" or "group" (GroupNorm with at most 32 groups after each hidden convolution).
        anchors_per_position: number of anchors per position.
        values: numbers per anchor: K for class logits, 4 for box offsets.
    """

    def __init__(
        self, *, in_channels: int, width: int, depth: int, norm: str, anchors_per_position: int, values: int
    ) -> None:
        super().__init__()
        self.values = values
        layers: list[nn.Module] = []
        channels = in_channels
        for _ in range(depth):
            layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=norm == "none"))
            if norm == "group":
                # At least two channels per group: on a 1 x 1 map, GroupNorm sets a group of one channel to 0.
                groups = math.gcd(32, width // 2) if width % 2 == 0 else 1
                layers.append(nn.GroupNorm(groups, width))
            layers.append(nn.ReLU(inplace=True))
            channels = width
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Conv2d(channels, anchors_per_position * values, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the outputs at all anchors of all levels, of shape (N, A, values)."""
        rows = []
        for level in levels:
            N, _, H, W = level.shape
            out = self.output(self.hidden(level))
            rows.append(out.view(N, -1, self.values, H, W).permute(0, 3, 4, 1, 2).reshape(N, -1, self.values))
        return torch.cat(rows, dim=1)


def initialise_prior(head: Head, prior: float) -> None:
    """Set the output bias to -log((1 - pi) / pi), so that each class starts with the probability pi = `prior`.

    Source: arXiv 1708.02002, section 4.1, "Initialization".
    """
    nn.init.constant_(head.output.bias, -math.log((1 - prior) / prior))  # type: ignore[arg-type]


def rescale_logits(head: Head, factor_K: Sequence[float], shift_K: Sequence[float]) -> None:
    """Change the output convolution in place, so that the logit z of class k becomes factor_k z + shift_k.

    Args:
        head: classification head of K classes.
        factor_K: factor of each class.
        shift_K: shift of each class.

    Raises:
        ValueError: the number of factors or of shifts is not K.
    """
    if not len(factor_K) == len(shift_K) == head.values:
        raise ValueError(f"expected {head.values} factors and shifts, found {len(factor_K)} and {len(shift_K)}")
    weight, bias = head.output.weight, head.output.bias
    assert bias is not None  # noqa: S101
    anchors = len(bias) // head.values
    # In float64: a float32 product would round the prior's bias of -4.6 by 2e-7.
    factor, shift = (
        torch.tensor(values, dtype=torch.float64).repeat(anchors).to(bias.device) for values in (factor_K, shift_K)
    )
    with torch.no_grad():
        weight.copy_(weight.double() * factor[:, None, None, None])
        bias.copy_(bias.double() * factor + shift)
