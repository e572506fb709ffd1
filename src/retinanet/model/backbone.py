"""Backbones: any timm model, or a network from outside, with feature maps at strides 8, 16 and 32."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import timm
import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from timm.models.resnet import Bottleneck
from torch import nn

from retinanet.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor


class BackboneError(UserError):
    """A backbone that does not exist or does not fit, or weights that cannot be had or do not fit."""


class _Affine(torch.autograd.Function):
    """BatchNorm whose statistics and weights are constants. Its gradient needs no input, so none is kept: PyTorch's own
    keeps it, which doubles the memory of a backbone in training.
    """

    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101, PT018
        scale_C = (norm.running_var + norm.eps).rsqrt()
        if norm.affine:
            scale_C = scale_C * norm.weight
        ctx.save_for_backward(scale_C)
        return F.batch_norm(x_NCHW, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> tuple[Tensor, None]:
        (scale_C,) = ctx.saved_tensors
        return (incoming[0] * scale_C[:, None, None]).to(incoming[0].dtype), None


def _is_constant(norm: nn.BatchNorm2d, x_NCHW: Tensor) -> bool:
    """Whether there is a gradient to make, and none for the layer's own weights."""
    weighs = any(p.requires_grad for p in norm.parameters(recurse=False))
    known = norm.running_mean is not None and not norm.training and not weighs
    return known and x_NCHW.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling()


class _FrozenBatchNorm2d(nn.BatchNorm2d):
    def forward(self, x_NCHW: Tensor) -> Tensor:
        if not _is_constant(self, x_NCHW):
            return super().forward(x_NCHW)
        return _Affine.apply(x_NCHW, self)  # type: ignore[no-any-return]


class _FrozenBatchNormAct2d(BatchNormAct2d):
    def forward(self, x_NCHW: Tensor) -> Tensor:
        if not _is_constant(self, x_NCHW):
            return super().forward(x_NCHW)  # type: ignore[no-any-return, no-untyped-call]
        return self.act(self.drop(_Affine.apply(x_NCHW, self)))  # type: ignore[no-any-return]


_FROZEN: Final[dict[type[nn.Module], type[nn.Module]]] = {
    nn.BatchNorm2d: _FrozenBatchNorm2d,
    BatchNormAct2d: _FrozenBatchNormAct2d,
}


class Backbone(nn.Module):
    """A network cut to its feature maps at the given strides. images_N3HW -> one map per stride, finest first.

    Args:
        name: timm's name of the model, or the name of `body`.
        strides: of the feature maps, rising.
        stride_in_1x1: move the stride of bottleneck blocks from the 3x3 to the first 1x1 convolution.
        body: a network from outside: see `check_body`. None: timm's model `name`.

    Raises:
        BackboneError: no such model, no maps at these strides, or a body that is not as `check_body` requires.
    """

    def __init__(
        self,
        *,
        name: str,
        strides: Sequence[int] = (8, 16, 32),
        stride_in_1x1: bool = False,
        body: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        if body is None:
            self.body = _timm_body(name, strides)
            info: Any = self.body.feature_info
            self.channels: tuple[int, ...] = tuple(info.channels())
        else:
            self.body = check_body(body, name, strides)
            self.channels = tuple(self.body.channels)  # type: ignore[arg-type]
        self.batchnorm_frozen = False
        if stride_in_1x1:
            self._move_strides()

    def _move_strides(self) -> None:
        moved = False
        for block in self.modules():
            if isinstance(block, Bottleneck) and block.conv2.stride != (1, 1):
                block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)
                moved = True
        if not moved:
            raise BackboneError(f"stride_in_1x1 is for ResNets of bottleneck blocks (resnet50, ...), not {self.name}")

    def forward(self, images_N3HW: Tensor) -> list[Tensor]:
        """Return the feature maps N x channels[i] x ceil(H / strides[i]) x ceil(W / strides[i])."""
        maps: list[Tensor] = self.body(images_N3HW)
        return maps

    def freeze_batchnorm(self) -> None:
        """Keep all BatchNorm as it is from now on: running statistics and affine weights, also in train mode."""
        self.batchnorm_frozen = True
        for module in self._batchnorms():
            module.requires_grad_(False)
            module.__class__ = _FROZEN.get(type(module), type(module))  # the same parameters, buffers and hooks
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode; frozen BatchNorm stays in eval mode."""
        super().train(mode)
        if self.batchnorm_frozen:
            for module in self._batchnorms():
                module.eval()
        return self

    def _batchnorms(self) -> list[nn.Module]:
        return [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def check_body(body: object, name: str, strides: Sequence[int]) -> nn.Module:
    """Return a network from outside if it can be a backbone.

    It must be a module whose `channels` holds a number for each stride, and which maps images_N3HW to one map per
    stride, finest first, of that many channels and of size ceil(H / stride) x ceil(W / stride). This function runs the
    network on one image.

    Raises:
        BackboneError: states what was expected and found.
    """
    if not isinstance(body, nn.Module):
        raise BackboneError(f"backbone {name}: expected it to return a torch.nn.Module, found {type(body).__name__}")
    channels: Any = getattr(body, "channels", None)
    if not isinstance(channels, Sequence) or len(channels) != len(strides):
        raise BackboneError(
            f"backbone {name}: expected an attribute `channels` with {len(strides)} numbers, one for each of the "
            f"strides {', '.join(map(str, strides))}, found {channels!r:.200}"
        )
    side, modes = 4 * max(strides), [(module, module.training) for module in body.modules()]
    try:
        with torch.no_grad():
            maps: Any = body.eval()(torch.zeros(1, 3, side, side))
    except Exception as error:  # the user's network runs here and can raise anything
        raise BackboneError(
            f"backbone {name}: an image of {side} x {side} pixels raised {type(error).__name__}: {error}"
        ) from error
    for module, mode in modes:
        module.training = mode
    expected = [(1, c, side // stride, side // stride) for c, stride in zip(channels, strides, strict=True)]
    found = [tuple(m.shape) for m in maps] if isinstance(maps, Sequence) else type(maps).__name__
    if found != expected:
        raise BackboneError(
            f"backbone {name}: expected feature maps of shapes {expected} for an image of {side} x {side} pixels, "
            f"found {found}"
        )
    return body


def _timm_body(name: str, strides: Sequence[int]) -> nn.Module:
    """Return timm's model cut to the deepest feature map of each stride, with random weights."""
    if not timm.is_model(name):
        raise BackboneError(f"timm has no model {name!r}{did_you_mean(name, timm.list_models())}")
    # With memory, this build draws random numbers, and the weights that a seed gives are those drawn after them.
    reductions = _reductions_on_meta(name) if torch.empty(0).is_meta else _reductions(name)
    missing = [stride for stride in strides if stride not in reductions]
    if missing:
        raise BackboneError(f"{name} has feature maps at strides {reductions}, needed are {list(strides)}")
    # The last map of a stride is the deepest.
    indices = tuple(len(reductions) - 1 - reductions[::-1].index(stride) for stride in strides)
    body: nn.Module = timm.create_model(name, features_only=True, pretrained=False, out_indices=indices)
    return body


def _reductions(name: str) -> list[int]:
    """Return the strides of all feature maps of timm's model."""
    try:
        probe: Any = timm.create_model(name, features_only=True, pretrained=False)
    except (RuntimeError, AssertionError, AttributeError, TypeError, ValueError) as error:
        raise BackboneError(f"{name} gives no feature maps (timm's features_only): {error}") from error
    return list(probe.feature_info.reduction())


@functools.lru_cache
def _reductions_on_meta(name: str) -> list[int]:
    with torch.device("meta"):
        return _reductions(name)
