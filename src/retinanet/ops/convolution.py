"""Convolutions for prediction: one function that returns the fastest form of a convolution and its activation.

There are three forms: Winograd's F(2x2, 3x3) in C (`winograd.py`), oneDNN, and plain torch. oneDNN computes
convolution, addition and activation in one pass over memory. It is called through private operators of torch. These
operators exist in torch 2.6 to 2.15, but may change in any release. So each number format is tested once. Plain torch
is used if an operator is missing, fails or returns wrong numbers.

Shape suffixes: N batch, H height, W width, I input channels, O output channels, T tiles of 2x2 outputs.
"""

from __future__ import annotations

import functools
import logging
import math
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.nn.functional as F
from torch import nn

from retinanet.ops.winograd import Winograd, supports_winograd

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_ONEDNN_ACTIVATIONS: Final[dict[type, tuple[str, list[float]]]] = {
    type(None): ("none", []),
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}
"""oneDNN's name and parameters of each activation that a convolution can include."""
_BOUNDS: Final[dict[type, tuple[float, float]]] = {
    type(None): (-math.inf, math.inf),
    nn.ReLU: (0.0, math.inf),
    nn.ReLU6: (0.0, 6.0),
}
"""The same activations as bounds of the outputs, for Winograd's form."""
_ONEDNN_DTYPES: Final = {torch.float32, torch.bfloat16}
"""Number formats that are computed by oneDNN where it works."""
_ONEDNN_TOLERANCE: Final = 0.05
"""Largest error of an output of size 1 that counts as rounding: above the error of bfloat16, below any wrong result."""


def prepare_convolution(
    convolution: nn.Module, activation: nn.Module | None = None, *, shapes: int = 1
) -> PreparedConvolution:
    """Return a module that computes `activation(convolution(x) + added)` in the fastest available form.

    The module shares the weights. Its `weight`, `bias` and `activation` may be replaced until the first call.

    Args:
        convolution: module that `supports_convolution` accepts.
        activation: module that `supports_activation` accepts, or None for no activation.
        shapes: number of input shapes for which the weights are kept in oneDNN's layout: 1 for a layer with one
            input shape, the number of feature levels for a layer of the heads.

    Raises:
        TypeError: the module or the activation is not supported.
    """
    if not supports_convolution(convolution):
        raise TypeError(f"expected a plain Conv2d with padding by zeros, found {convolution}")
    if activation is not None and not supports_activation(activation):
        raise TypeError(f"expected ReLU, ReLU6 or None as activation, found {activation}")
    return PreparedConvolution(convolution, activation, shapes)


def supports_convolution(module: nn.Module) -> bool:
    """Return whether a module is exactly an `nn.Conv2d` with a fixed padding of zeros.

    Subclasses in timm are not supported, because some of them compute the padding from the size of the input.
    """
    return type(module) is nn.Conv2d and module.padding_mode == "zeros" and isinstance(module.padding, tuple)


def supports_activation(module: nn.Module | None) -> bool:
    """Return whether a prepared convolution can include this activation: exactly `nn.ReLU` or `nn.ReLU6`."""
    return module is not None and type(module) in _BOUNDS


class PreparedConvolution(nn.Module):
    """Convolution with an optional addition and activation, built by `prepare_convolution`. For prediction only."""

    def __init__(self, convolution: nn.Module, activation: nn.Module | None, shapes: int) -> None:
        super().__init__()
        assert isinstance(convolution, nn.Conv2d) and isinstance(convolution.padding, tuple)  # noqa: S101, PT018
        self.weight, self.bias = convolution.weight, convolution.bias
        self.stride, self.padding = list(convolution.stride), list(convolution.padding)
        self.dilation, self.groups = list(convolution.dilation), convolution.groups
        self.activation = activation
        self._shapes = shapes
        self._packed: dict[tuple[int, ...], Tensor] = {}
        self._winograd: Winograd | None = None

    def supports_tiles(self, x_NIHW: Tensor | None = None) -> bool:
        """Return whether `forward` can compute selected tiles only. None: return whether any input supports this."""
        winograd = self._winograd_form()
        return winograd is not None and (x_NIHW is None or winograd.supports(x_NIHW))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the weights in oneDNN's and Winograd's layout, which a copy computes again."""
        return {**self.__dict__, "_packed": {}, "_winograd": None}

    def forward(self, x_NIHW: Tensor, added_NOHW: Tensor | None = None, tiles_T: Tensor | None = None) -> Tensor:
        """Return `activation(convolution(x) + added)`, (N, O, H, W).

        Args:
            x_NIHW: feature maps. The memory format channels_last is fastest.
            added_NOHW: tensor added before the activation. The call may overwrite it, so the caller must not use it
                again.
            tiles_T: indices of the tiles to compute, from `winograd.tiles_of`; all other outputs are 0. Requires
                `supports_tiles` and no `added_NOHW`. None: compute all outputs.

        Raises:
            ValueError: tiles are passed, but the convolution or the input does not support tiles.
        """
        winograd = None if added_NOHW is not None else self._winograd_form()
        if winograd is not None and winograd.supports(x_NIHW):
            return winograd(x_NIHW, tiles_T)
        if tiles_T is not None:
            raise ValueError(
                f"tiles_T: expected an input that supports_tiles accepts and no added_NOHW, found an input of "
                f"{tuple(x_NIHW.shape)} and added_NOHW {'None' if added_NOHW is None else tuple(added_NOHW.shape)}. "
                f"Pass tiles_T=None to compute all outputs"
            )
        # With mixed types, oneDNN would compute; torch raises an error in words, or converts them under autocast.
        if x_NIHW.device.type == "cpu" and x_NIHW.dtype == self.weight.dtype and onednn_works(x_NIHW.dtype):
            return self._onednn(x_NIHW, added_NOHW)
        y_NOHW = F.conv2d(x_NIHW, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        if added_NOHW is not None:
            y_NOHW += added_NOHW
        return y_NOHW if self.activation is None else self.activation(y_NOHW)

    def _winograd_form(self) -> Winograd | None:
        """Return Winograd's form, built in the first call, or None for kernels that it does not support."""
        if self._winograd is None and supports_winograd(self.weight):
            ones = [1, 1]
            if self.stride == self.padding == self.dilation == ones and self.groups == 1:
                low, high = _BOUNDS[type(self.activation)]
                self._winograd = Winograd(self.weight, self.bias, low=low, high=high)
        return self._winograd

    def _onednn(self, x_NIHW: Tensor, added_NOHW: Tensor | None) -> Tensor:
        """Return the outputs, computed by oneDNN. The memory of `added_NOHW` holds the outputs afterwards."""
        settings = (self._packed_weight(x_NIHW), self.bias, self.padding, self.stride, self.dilation, self.groups)
        name, numbers = _ONEDNN_ACTIVATIONS[type(self.activation)]
        if added_NOHW is None:
            out: Tensor = torch.ops.mkldnn._convolution_pointwise(x_NIHW, *settings, name, numbers, "")
            return out
        # After an addition, oneDNN includes ReLU and no other activation.
        unary = name if name == "relu" else None
        total: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            added_NOHW, x_NIHW, *settings, "add", 1.0, unary, [], ""
        )
        return total if self.activation is None or unary is not None else self.activation(total)

    def _packed_weight(self, x_NIHW: Tensor) -> Tensor:
        """Return the weights in oneDNN's layout for inputs of this shape.

        The layouts of the last `shapes` input shapes are kept. Without this, oneDNN reorders the weights in every call,
        which takes half the time of a small image.
        """
        shape = tuple(x_NIHW.shape)
        packed = self._packed.get(shape)
        if packed is None:
            packed = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight.data, self.padding, self.stride, self.dilation, self.groups, list(shape)
            )
            # A new dictionary, because another thread may read the old one.
            self._packed = dict([*self._packed.items(), (shape, packed)][-self._shapes :])
        return packed


def onednn_works(dtype: torch.dtype) -> bool:
    """Return whether oneDNN is enabled and torch's private operators compute this number format correctly.

    The first call for a number format computes a few small convolutions and stores the result for later calls.
    """
    return bool(torch._C._get_mkldnn_enabled()) and _onednn_is_right(dtype)


@functools.cache
def _onednn_is_right(dtype: torch.dtype) -> bool:
    if dtype not in _ONEDNN_DTYPES or not torch._C._has_mkldnn:
        return False
    try:
        error = _onednn_error(dtype)
    except Exception as fault:  # noqa: BLE001 - a missing operator, another signature, a processor without the format
        reason = str(fault).split("\n", maxsplit=1)[0]
    else:
        if error <= _ONEDNN_TOLERANCE:
            return True
        reason = f"the outputs differ by {error:.2g}"
    log.info("convolutions in %s: oneDNN's operators cannot be used (%s); the slower torch code is used", dtype, reason)
    return False


def _onednn_error(dtype: torch.dtype) -> float:
    """Return the largest absolute error of oneDNN's form over all activations, with and without an addition."""
    # The device is explicit because torch's default device may be a GPU.
    index = torch.arange(16 * 16 * 9, dtype=torch.float64, device="cpu")
    weight_OI33 = (index * 0.7).sin().view(16, 16, 3, 3) / 12  # outputs of a size near 1
    bias_O = index[:16].cos()
    x_NIHW, added_NOHW = (
        wave.view(1, 16, 5, 7).to(memory_format=torch.channels_last)
        for wave in ((index[: 16 * 35] * 1.3).sin(), (index[: 16 * 35] * 2.1).cos())
    )
    # skip_init: random initial weights would change the state of torch's generator.
    convolution: nn.Conv2d = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Conv2d, 16, 16, 3, padding=1, device="cpu"
    )
    convolution.weight = nn.Parameter(weight_OI33.to(dtype), requires_grad=False)
    convolution.bias = nn.Parameter(bias_O.to(dtype), requires_grad=False)
    rounded = [part.to(dtype).double() for part in (x_NIHW, weight_OI33, bias_O)]
    exact = F.conv2d(rounded[0], rounded[1], rounded[2], padding=1)
    errors = []
    for activation in (None, nn.ReLU(), nn.ReLU6()):
        module = PreparedConvolution(convolution, activation, 1)
        for added in (None, added_NOHW.to(dtype)):
            total = exact if added is None else exact + added.double()
            expected = total if activation is None else activation(total)
            found = module._onednn(x_NIHW.to(dtype), added)
            errors.append((found.double() - expected).abs().max())
    return float(torch.stack(errors).max())  # NaN if any error is NaN
