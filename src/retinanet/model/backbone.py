"""Backbones: any timm model or custom network with feature maps at strides 8, 16 and 32."""

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
    """A backbone that does not exist or is unsuitable, or pretrained weights that are missing or do not fit."""


class _FrozenBatchNormFunction(torch.autograd.Function):
    """BatchNorm with constant statistics and weights.

    Its gradient does not need the input, so the input is not saved for the backward pass. PyTorch's BatchNorm saves it,
    which doubles the memory of a backbone in training.
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


def _can_discard_input(norm: nn.BatchNorm2d, x_NCHW: Tensor) -> bool:
    """Return whether `_FrozenBatchNormFunction` applies: the layer is constant and its input needs a gradient."""
    is_trainable = any(p.requires_grad for p in norm.parameters(recurse=False))
    is_constant = norm.running_mean is not None and not norm.training and not is_trainable
    return is_constant and x_NCHW.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling()


class _FrozenBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d after `Backbone.freeze_batchnorm`."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if not _can_discard_input(self, x_NCHW):
            return super().forward(x_NCHW)
        return _FrozenBatchNormFunction.apply(x_NCHW, self)  # type: ignore[no-any-return]


class _FrozenBatchNormAct2d(BatchNormAct2d):
    """timm's BatchNormAct2d, BatchNorm with an activation, after `Backbone.freeze_batchnorm`."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if not _can_discard_input(self, x_NCHW):
            return super().forward(x_NCHW)  # type: ignore[no-any-return, no-untyped-call]
        return self.act(self.drop(_FrozenBatchNormFunction.apply(x_NCHW, self)))  # type: ignore[no-any-return]


_FROZEN: Final[dict[type[nn.Module], type[nn.Module]]] = {
    nn.BatchNorm2d: _FrozenBatchNorm2d,
    BatchNormAct2d: _FrozenBatchNormAct2d,
}


class Backbone(nn.Module):
    """Compute feature maps at the given strides: images_N3HW -> one map per stride, finest first.

    Args:
        name: timm's name of the model, or the name of `body`.
        strides: strides of the feature maps, in increasing order.
        stride_in_1x1: move the stride of bottleneck blocks from the 3x3 to the first 1x1 convolution.
        body: custom network, see `check_body`. None: timm's model `name`.

    Raises:
        BackboneError: timm has no such model, the model has no maps at these strides, or `check_body` rejects the
            network.
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
            raise BackboneError(
                f"stride_in_1x1 needs a ResNet with bottleneck blocks, such as resnet50, found backbone {self.name}"
            )

    def forward(self, images_N3HW: Tensor) -> list[Tensor]:
        """Return the feature maps, of shapes (N, channels[i], ceil(H / strides[i]), ceil(W / strides[i]))."""
        maps: list[Tensor] = self.body(images_N3HW)
        return maps

    def freeze_batchnorm(self) -> None:
        """Make the running statistics and the weights of all BatchNorm layers constant, also in train mode."""
        self.batchnorm_frozen = True
        for module in self._batchnorms():
            module.requires_grad_(False)
            module.__class__ = _FROZEN.get(type(module), type(module))  # keeps parameters, buffers and hooks
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """Set train or eval mode. Frozen BatchNorm layers stay in eval mode."""
        super().train(mode)
        if self.batchnorm_frozen:
            for module in self._batchnorms():
                module.eval()
        return self

    def _batchnorms(self) -> list[nn.Module]:
        return [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def check_body(body: object, name: str, strides: Sequence[int]) -> nn.Module:
    """Return a custom network if it can serve as a backbone.

    The network must be a module with an attribute `channels`, one number for each stride. It must map images_N3HW to
    one feature map per stride, finest first, of shape (N, channels[i], ceil(H / stride), ceil(W / stride)). This
    function runs the network on one image.

    Raises:
        BackboneError: `body` does not meet these requirements.
    """
    if not isinstance(body, nn.Module):
        raise BackboneError(
            f"backbone {name}: expected a factory that returns a torch.nn.Module, found {type(body).__name__}"
        )
    channels: Any = getattr(body, "channels", None)
    if not isinstance(channels, Sequence) or len(channels) != len(strides):
        raise BackboneError(
            f"backbone {name}: expected an attribute `channels` with {len(strides)} numbers, one for each of the "
            f"strides {', '.join(map(str, strides))}, found {channels!r:.200}"
        )
    _check_maps(body, name, strides, channels)
    return body


def _check_maps(body: nn.Module, name: str, strides: Sequence[int], channels: Sequence[int]) -> None:
    """Run a network on one image, and raise `BackboneError` if its feature maps do not have the expected shapes.

    The image is not square and has no usual size: some networks accept the image size of their pretraining only, and
    timm declares wrong strides for some.
    """
    H, W = 3 * max(strides), 5 * max(strides)
    modes = [(module, module.training) for module in body.modules()]
    try:
        with torch.no_grad():
            maps: Any = body.eval()(torch.zeros(1, 3, H, W))
    except Exception as error:  # the user's network runs here and can raise anything
        raise BackboneError(
            f"backbone {name} must accept images whose sides are any multiples of {max(strides)} pixels, but an image "
            f"of {W} x {H} pixels raised {type(error).__name__}: {error}. Choose another backbone"
        ) from error
    for module, mode in modes:
        module.training = mode
    expected = [(1, c, H // stride, W // stride) for c, stride in zip(channels, strides, strict=True)]
    found = [tuple(m.shape) for m in maps] if isinstance(maps, Sequence) else type(maps).__name__
    if found != expected:
        raise BackboneError(
            f"backbone {name}: expected feature maps of shapes {expected} for an image of {W} x {H} pixels, "
            f"found {found}"
        )


def _timm_body(name: str, strides: Sequence[int]) -> nn.Module:
    """Return timm's model, with random weights, that outputs the deepest feature map of each stride."""
    if not timm.is_model(name):
        near = did_you_mean(name.rpartition("/")[2].partition(".")[0], timm.list_models())
        raise BackboneError(f"timm has no model {name!r}{near}")
    # Outside a meta device, building the model draws random numbers. It must happen on every call, because the weights
    # that a seed gives are drawn after it.
    reductions = _reductions_on_meta(name) if torch.empty(0).is_meta else _reductions(name)
    missing = [stride for stride in strides if stride not in reductions]
    if missing:
        raise BackboneError(
            f"backbone {name}: expected feature maps at strides {list(strides)}, found strides {reductions}"
        )
    # If several maps have the same stride, the last one is the deepest.
    indices = tuple(len(reductions) - 1 - reductions[::-1].index(stride) for stride in strides)
    body: Any = timm.create_model(name, features_only=True, pretrained=False, out_indices=indices)
    if not torch.empty(0).is_meta:  # on the meta device, a trained network is loaded
        _check_maps(body, name, strides, body.feature_info.channels())
    return body  # type: ignore[no-any-return]


def _reductions(name: str) -> list[int]:
    """Return the strides of all feature maps of timm's model."""
    try:
        probe: Any = timm.create_model(name, features_only=True, pretrained=False)
    except (RuntimeError, AssertionError, AttributeError, TypeError, ValueError) as error:
        raise BackboneError(f"backbone {name} has no feature maps (timm's features_only): {error}") from error
    return list(probe.feature_info.reduction())


@functools.lru_cache
def _reductions_on_meta(name: str) -> list[int]:
    """Return the strides of all feature maps of timm's model, without allocating its weights."""
    with torch.device("meta"):
        return _reductions(name)
