"""The RetinaNet of another project's state dict: its options from names and shapes, its weights under our names.

Shape suffixes: K classes, C anchors of a position, R anchor ratios, S anchor scales, V values of an anchor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from retinanet.checkpoint.peers import PEERS, Kind, Peer
from retinanet.config import ModelConfig, resolve
from retinanet.errors import UserError
from retinanet.model import RetinaNet

MOST_LISTED: Final = 20
PREFIXES: Final = ("module.", "model.")
"""What wrappers put before every name: DataParallel and DDP, Lightning modules."""
HOLDERS: Final = ("state_dict", "model")
"""Where training scripts keep the state dict in their files."""
BACKBONES: Final[Mapping[tuple[bool, tuple[int, ...]], str]] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
"""By (bottleneck blocks?, blocks of each stage)."""


class WeightsError(UserError):
    """A state dict of another project that is incomplete, or that of another network."""


def inner_state(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state dict within a file's content, its names without a wrapper's prefix."""
    for holder in HOLDERS:
        if isinstance(content.get(holder), Mapping):
            return inner_state(content[holder])
    state = {str(name): value for name, value in content.items()}
    for prefix in PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            return inner_state({name.removeprefix(prefix): value for name, value in state.items()})
    return state


def read_state(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a state dict, by name."""
    state: dict[str, Tensor] = {}
    wrong = []
    for name, value in inner_state(content).items():
        if isinstance(value, Tensor):
            state[name] = value.detach()
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            state[name] = torch.from_numpy(np.array(value))  # a copy: torch cannot take read-only memory
        else:
            wrong.append(f"no tensor: {name} ({type(value).__name__})")
    _refuse(wrong, "no state dict")
    return state


def _refuse(faults: Sequence[str], what: str) -> None:
    """Raise `WeightsError` with a list of the faults, if there are any."""
    if faults:
        more = f"\n  ... and {len(faults) - MOST_LISTED} more" if len(faults) > MOST_LISTED else ""
        raise WeightsError(f"{what}:\n  " + "\n  ".join(faults[:MOST_LISTED]) + more)


def build_network(state: dict[str, Tensor], kind: Kind, frozen_eps: float, options: dict[str, Any]) -> RetinaNet:
    """Return the network with its weights, in eval mode; or raise, with a list of all that does not fit."""
    peer = PEERS[kind]
    network = {**_network(state, kind, peer), **options}
    config = resolve(ModelConfig, network)
    anchors = config.anchors_per_position
    K, rest = divmod(_rows(state, peer.class_output, anchors), anchors)
    if rest or not K or _rows(state, peer.box_output, 4 * anchors) != 4 * anchors:
        raise WeightsError(
            f"{peer.class_output} and {peer.box_output} have {_rows(state, peer.class_output, 0)} and "
            f"{_rows(state, peer.box_output, 0)} outputs, which {anchors} anchors a position cannot have: give "
            "anchor_scales and anchor_ratios as trained"
        )
    model = RetinaNet(num_classes=K, config=config)
    found = _fit(state, model, peer)
    if kind == "detectron2":
        _from_bgr_and_scale_first(found, state, model)
    elif frozen := not any(name.endswith("num_batches_tracked") for name in state):
        _absorb_eps(found, model, frozen_eps)
    model.load_state_dict(found)
    if kind == "detectron2" or frozen:
        model.backbone.freeze_batchnorm()
    return model.eval()


def _network(state: dict[str, Tensor], kind: Kind, peer: Peer) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that names and shapes tell, and those that all of the kind have."""
    blocks: dict[int, int] = {}
    hidden = set()
    for name, value in state.items():
        if block := re.match(peer.stage, name):
            stage, number = int(block[1]), int(block[2])
            blocks[stage] = max(blocks.get(stage, 0), number + 1)
        if value.ndim == 4 and re.fullmatch(peer.hidden, name):
            hidden.add(name)
    bottleneck = peer.bottleneck in state
    counts = tuple(blocks[stage] for stage in sorted(blocks))
    if (bottleneck, counts) not in BACKBONES:
        raise WeightsError(
            f"no backbone that can be imported ({', '.join(BACKBONES.values())}): it has stages of {list(counts)} "
            f"{'bottleneck' if bottleneck else 'plain'} blocks"
        )
    width = _rows(state, peer.coarse, ModelConfig.fpn_width)
    p6_from = "p5" if peer.coarse in state and state[peer.coarse].shape[1] == width else "c5"
    norms = any(name.startswith("head.classification_head.conv.0.1.") for name in state)
    return {
        "backbone": BACKBONES[bottleneck, counts],
        "fpn_width": width,
        "head_width": width,
        "head_depth": len(hidden),
        "head_norm": "group" if norms else "none",
        "p6_from": p6_from,
        "anchor_style": "torchvision" if kind == "torchvision" else "exact",
        "stride_in_1x1": kind == "detectron2" and bottleneck,
    }


def _rows(state: dict[str, Tensor], name: str, default: int) -> int:
    """Return how many rows a tensor has; the default where it is missing, which `_fit` will say."""
    return len(state[name]) if name in state and state[name].ndim else default


def _fit(state: dict[str, Tensor], model: RetinaNet, peer: Peer) -> dict[str, Tensor]:
    """Return the tensors under our names; raise with a list where something is unknown, missing or misshapen."""
    step = 3 if model.config.head_norm == "group" else 2
    faults, used, out = [], set(), {}
    for ours, wanted in model.state_dict().items():
        names = peer.names(ours, step)
        theirs = next((name for name in names if name in state), None)
        if theirs is not None:
            used.add(theirs)
            out[ours] = state[theirs].to(wanted.dtype)
            if out[ours].shape != wanted.shape:
                faults.append(f"{theirs}: expected {tuple(wanted.shape)}, found {tuple(state[theirs].shape)}")
        elif ours.endswith("num_batches_tracked"):
            out[ours] = wanted  # frozen BatchNorm counts nothing
        else:
            faults.append(f"missing: {names[0]}")
    extra = ("pixel_mean", "pixel_std", *_cells(model))
    faults += [f"unknown: {name}" for name in state if name not in used and name not in extra]
    _refuse(faults, f"these weights do not fit a RetinaNet with {model.config.backbone}")
    return out


def _cells(model: RetinaNet) -> Iterator[str]:
    """Yield the names under which early Detectron2 files hold the anchors of one position."""
    return (f"anchor_generator.cell_anchors.{level}" for level in range(len(model.config.levels)))


def _absorb_eps(found: dict[str, Tensor], model: RetinaNet, eps: float) -> None:
    """Scale the weights of frozen BatchNorm for another eps than ours: the same function, no option of the network."""
    for prefix, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            variance = found[f"{prefix}.running_var"].double()
            factor = ((variance + module.eps) / (variance + eps)).sqrt()
            weight = found[f"{prefix}.weight"]
            found[f"{prefix}.weight"] = (weight.double() * factor).to(weight.dtype)


def _from_bgr_and_scale_first(found: dict[str, Tensor], state: dict[str, Tensor], model: RetinaNet) -> None:
    """Bring channels and anchors into our order: RGB; ratio by ratio, and scale by scale within a ratio."""
    first = "backbone.body.conv1.weight"
    found[first] = found[first].flip(1)
    R, S = len(model.config.anchor_ratios), len(model.config.anchor_scales)
    for head, V in (("class_head", model.num_classes), ("box_head", 4)):
        for name in (f"{head}.output.weight", f"{head}.output.bias"):
            value_SRV = found[name].view(S, R, V, *found[name].shape[1:])
            found[name] = value_SRV.transpose(0, 1).reshape(found[name].shape)
    cells = [cell_C4.view(R, S, 4).transpose(0, 1).reshape(-1, 4) for cell_C4 in model.anchors.cells]
    faults = [
        f"{name}: other anchors than {model.config.anchor_sizes} x {model.config.anchor_scales} give"
        for name, cell_C4 in zip(_cells(model), cells, strict=True)
        if name in state
        and not (state[name].shape == cell_C4.shape and torch.allclose(state[name], cell_C4, atol=1e-2))
    ]
    _refuse(faults, "give anchor_sizes, anchor_scales and anchor_ratios as trained")
