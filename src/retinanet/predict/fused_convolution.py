"""A convolution with its activation, and perhaps an addition, as one pass over memory: oneDNN's, or Winograd's in C.

N batch, H, W of a level.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.nn.functional as F
from torch import nn

from retinanet.ops.convolution import Winograd, can_convolve

if TYPE_CHECKING:
    from torch import Tensor

ACTIVATIONS: Final[dict[type[nn.Module], tuple[str, list[float]]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}
"""What oneDNN computes within a convolution, by the name and the numbers that it takes."""
_LIMITS: Final[dict[type, tuple[float, float]]] = {
    type(None): (-math.inf, math.inf),
    nn.ReLU: (0.0, math.inf),
    nn.ReLU6: (0.0, 6.0),
}
"""The same as the range that outputs are cut off to."""


class Cast(nn.Module):
    """A module that works in a number format of its own."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module
        self.dtype = dtype

    def forward(self, x: Tensor) -> Any:
        """Return what the module makes of the input."""
        return self.module(x.to(self.dtype))


class FusedConvolution(nn.Module):
    """A convolution, then perhaps an addition, then perhaps an activation: one pass over memory where there is oneDNN.

    Args:
        convolution: taken over.
        activation: one of `ACTIVATIONS`.
        shapes: for how many shapes of the input the weights are kept in oneDNN's layout.
    """

    def __init__(self, convolution: nn.Module, activation: nn.Module | None = None, shapes: int = 1) -> None:
        super().__init__()
        assert isinstance(convolution, nn.Conv2d) and isinstance(convolution.padding, tuple)  # noqa: S101, PT018
        self.weight, self.bias = convolution.weight, convolution.bias
        self.stride, self.padding = list(convolution.stride), list(convolution.padding)
        self.dilation, self.groups = list(convolution.dilation), convolution.groups
        self.activation = activation
        self.shapes = shapes
        self.fused = self.weight.device.type == "cpu" and has_onednn()
        self._packed: dict[tuple[int, ...], Tensor] = {}
        self._winograd: Winograd | None = None

    def winograd(self) -> Winograd | None:
        """Return the convolution as Winograd's, made once, or None where it cannot be."""
        if self._winograd is None and self.fused and can_convolve(self.weight):
            ones = [1, 1]
            if self.stride == self.padding == self.dilation == ones and self.groups == 1:
                low, high = _LIMITS[type(self.activation)]
                self._winograd = Winograd(self.weight, self.bias, low=low, high=high)
        return self._winograd

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Return activation(convolution(x) + added); `added` is overwritten and must be nobody else's."""
        ours = None if added is not None else self.winograd()
        if ours is not None and ours.serves(x):
            return ours(x)
        if self.fused:
            name, numbers = ("none", []) if self.activation is None else ACTIVATIONS[type(self.activation)]
            settings = (self._weight_for(x), self.bias, self.padding, self.stride, self.dilation, self.groups)
            if added is None:
                out: Tensor = torch.ops.mkldnn._convolution_pointwise(x, *settings, name, numbers, "")
                return out
            unary = None if self.activation is None else name
            return torch.ops.mkldnn._convolution_pointwise_.binary(  # type: ignore[no-any-return]
                added, x, *settings, "add", 1.0, unary, numbers, ""
            )
        y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        if added is not None:
            y += added
        return y if self.activation is None else self.activation(y)

    def _weight_for(self, x: Tensor) -> Tensor:
        """Return the weights in the layout that oneDNN wants for inputs of this shape; the last few are kept.

        In another layout it would bring them into this one at every call, which on small pictures takes half the time.
        """
        shape = tuple(x.shape)
        packed = self._packed.get(shape)
        if packed is None:
            packed = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight.data, self.padding, self.stride, self.dilation, self.groups, list(shape)
            )
            # A new dictionary, not a changed one: another thread may be reading.
            self._packed = dict([*self._packed.items(), (shape, packed)][-self.shapes :])
        return packed


def has_onednn() -> bool:
    """Return whether torch has the operators that its compiler uses, and oneDNN is switched on."""
    names = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")
    there = bool(torch._C._has_mkldnn and torch._C._get_mkldnn_enabled())
    return there and all(hasattr(torch.ops.mkldnn, name) for name in names)


def is_plain(module: nn.Module) -> bool:
    """Return whether a module is a convolution and nothing besides: timm has some that pad by the input's size."""
    return type(module) is nn.Conv2d and module.padding_mode == "zeros" and isinstance(module.padding, tuple)


def join_activations(layers: list[nn.Module], *, shapes: int) -> nn.Sequential:
    """Return the layers one after the other, activations within the convolutions before them."""
    out: list[nn.Module] = []
    for layer in layers:
        before = out[-1] if out else None
        if type(layer) in ACTIVATIONS and isinstance(before, FusedConvolution) and before.activation is None:
            before.activation = layer
        else:
            out.append(FusedConvolution(layer, shapes=shapes) if is_plain(layer) else layer)
    return nn.Sequential(*out)
