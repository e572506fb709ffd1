"""Build a RetinaNet from a state dict of another project: infer its options, rename and reorder its weights.

Shape suffixes: K classes, C anchors per position, R anchor ratios, S anchor scales, V values per anchor.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from retinanet.checkpoint.holders import FoundState, describe_content, find_states
from retinanet.checkpoint.peers import PEERS, Peer, Project
from retinanet.config import ModelConfig, resolve
from retinanet.errors import UserError
from retinanet.model import RetinaNet

MAX_LISTED: Final = 20
"""Maximum number of faults in an error message."""
BACKBONES: Final[Mapping[tuple[bool, tuple[int, ...]], str]] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
"""timm's name of the backbone by (has bottleneck blocks, number of blocks in each stage)."""


class WeightsError(UserError):
    """A state dict of another project that is incomplete or belongs to a different network."""


def find_state(content: Any, project: Project) -> Mapping[str, Any] | None:
    """Return the values of a project's RetinaNet in a file's content by name, or None if there is none.

    If the file contains several, the averaged weights (EMA) are returned with a warning that names the others.

    Raises:
        WeightsError: several networks with different weights, of which not exactly one is averaged.
    """
    peer = PEERS[project]
    found = find_states(content, peer.marker)
    found = [one for one in found if peer.class_output in one.state] or found
    different = [one for i, one in enumerate(found) if not any(_is_equal(one, other) for other in found[:i])]
    averaged = [one for one in different if one.is_averaged]
    if len(different) <= 1:
        return different[0].state if different else None
    places = "; ".join(one.place for one in different)
    if len(averaged) != 1:
        raise WeightsError(
            f"expected one RetinaNet of {project}, found {len(different)} with different weights ({places}): save the "
            "state dict of one of them in a file of its own with torch.save"
        )
    text = f"of {len(different)} networks ({places}), the averaged one is used: {averaged[0].place}"
    warnings.warn(text, stacklevel=1)  # always the same line, so that Python shows the warning once
    return averaged[0].state


def _is_equal(one: FoundState, other: FoundState) -> bool:
    """Return whether two networks have equal tensors."""
    return one.state.keys() == other.state.keys() and all(
        value is other.state[name] or np.array_equal(np.asarray(value), np.asarray(other.state[name]))
        for name, value in one.state.items()
    )


def read_state(content: Any, project: Project) -> dict[str, Tensor]:
    """Return the tensors of a project's RetinaNet in a file's content by name.

    Raises:
        WeightsError: the content has no or several networks, or an entry is not a tensor or an array.
    """
    values = find_state(content, project)
    if values is None:
        raise WeightsError(
            f"expected tensor names of {project} that contain {PEERS[project].marker}, found "
            f"{describe_content(content)}"
        )
    state: dict[str, Tensor] = {}
    faults = []
    for name, value in values.items():
        if isinstance(value, Tensor):
            state[name] = value.detach()
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            state[name] = torch.from_numpy(np.array(value))  # a copy, because torch needs writable memory
        elif "." in name:  # other names are entries beside the tensors, such as epoch
            faults.append(f"not a tensor: {name} ({type(value).__name__})")
    _raise_if_any(faults, "expected a state dict, a dictionary of tensors, found other values")
    return state


def _raise_if_any(faults: Sequence[str], message: str) -> None:
    """Raise `WeightsError` with the message and a list of the faults, unless the list is empty."""
    if faults:
        more = f"\n  ... and {len(faults) - MAX_LISTED} more" if len(faults) > MAX_LISTED else ""
        raise WeightsError(f"{message}:\n  " + "\n  ".join(faults[:MAX_LISTED]) + more)


def build_network(state: dict[str, Tensor], project: Project, frozen_eps: float, options: dict[str, Any]) -> RetinaNet:
    """Return a RetinaNet with the weights of a project's state dict, in eval mode.

    Args:
        state: tensors by the project's names.
        project: project that the state dict comes from.
        frozen_eps: eps of frozen BatchNorm.
        options: fields of `ModelConfig` that replace the inferred ones.

    Raises:
        WeightsError: unknown tensors, missing tensors or wrong shapes; the message lists them.
    """
    peer = PEERS[project]
    config = resolve(ModelConfig, {**_infer_options(state, project, peer), **options})
    anchors = config.anchors_per_position
    K, rest = divmod(_rows(state, peer.class_output, anchors), anchors)
    if rest or not K or _rows(state, peer.box_output, 4 * anchors) != 4 * anchors:
        raise WeightsError(
            f"{peer.class_output} and {peer.box_output} have {_rows(state, peer.class_output, 0)} and "
            f"{_rows(state, peer.box_output, 0)} outputs, which do not fit {anchors} anchors per position: give "
            "anchor_scales and anchor_ratios as trained"
        )
    model = RetinaNet(num_classes=K, config=config)
    weights = _rename(state, model, peer)
    if project == "detectron2":
        _reorder_detectron2(weights, state, model)
    elif frozen := not any(name.endswith("num_batches_tracked") for name in state):
        _absorb_eps(weights, model, frozen_eps)
    model.load_state_dict(weights)
    if project == "detectron2" or frozen:
        model.backbone.freeze_batchnorm()
    return model.eval()


def _infer_options(state: dict[str, Tensor], project: Project, peer: Peer) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that follow from the project and from the names and shapes of tensors."""
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
            f"expected one of the backbones {', '.join(BACKBONES.values())}, found stages of {list(counts)} "
            f"{'bottleneck' if bottleneck else 'plain'} blocks"
        )
    width = _rows(state, peer.coarse, ModelConfig.fpn_width)
    p6_from = "p5" if peer.coarse in state and state[peer.coarse].shape[1] == width else "c5"
    has_group_norm = any(name.startswith("head.classification_head.conv.0.1.") for name in state)
    return {
        "backbone": BACKBONES[bottleneck, counts],
        "fpn_width": width,
        "head_width": width,
        "head_depth": len(hidden),
        "head_norm": "group" if has_group_norm else "none",
        "p6_from": p6_from,
        "anchor_style": "torchvision" if project == "torchvision" else "exact",
        "stride_in_1x1": project == "detectron2" and bottleneck,
    }


def _rows(state: dict[str, Tensor], name: str, default: int) -> int:
    """Return the number of rows of a tensor, or the default if the tensor is missing (`_rename` reports that)."""
    return len(state[name]) if name in state and state[name].ndim else default


def _rename(state: dict[str, Tensor], model: RetinaNet, peer: Peer) -> dict[str, Tensor]:
    """Return the tensors under the names of `RetinaNet`.

    Raises:
        WeightsError: unknown tensors, missing tensors or wrong shapes; the message lists them.
    """
    step = 3 if model.config.head_norm == "group" else 2
    faults, used, weights = [], set(), {}
    for name, parameter in model.state_dict().items():
        peer_names = peer.names(name, step)
        peer_name = next((candidate for candidate in peer_names if candidate in state), None)
        if peer_name is not None:
            used.add(peer_name)
            weights[name] = state[peer_name].to(parameter.dtype)
            if weights[name].shape != parameter.shape:
                shape = tuple(state[peer_name].shape)
                faults.append(f"{peer_name}: expected {tuple(parameter.shape)}, found {shape}")
        elif name.endswith("num_batches_tracked"):
            weights[name] = parameter  # frozen BatchNorm has no such counter
        else:
            faults.append(f"missing: {peer_names[0]}")
    unused = ("pixel_mean", "pixel_std", *_cell_names(model))
    faults += [f"unknown: {name}" for name in state if name not in used and name not in unused]
    _raise_if_any(faults, f"the weights do not fit a RetinaNet with {model.config.backbone}")
    return weights


def _cell_names(model: RetinaNet) -> Iterator[str]:
    """Return the names of the tensors in which early Detectron2 files store the anchors of one position."""
    return (f"anchor_generator.cell_anchors.{level}" for level in range(len(model.config.levels)))


def _absorb_eps(weights: dict[str, Tensor], model: RetinaNet, eps: float) -> None:
    """Scale the weights of frozen BatchNorm in place, so that the network's own eps gives the outputs of `eps`."""
    for prefix, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            variance = weights[f"{prefix}.running_var"].double()
            factor = ((variance + module.eps) / (variance + eps)).sqrt()
            weight = weights[f"{prefix}.weight"]
            weights[f"{prefix}.weight"] = (weight.double() * factor).to(weight.dtype)


def _reorder_detectron2(weights: dict[str, Tensor], state: dict[str, Tensor], model: RetinaNet) -> None:
    """Convert input channels from BGR to RGB and outputs from scale-major to ratio-major anchor order, in place.

    Raises:
        WeightsError: the anchors that an early Detectron2 file stores differ from the network's.
    """
    conv1 = "backbone.body.conv1.weight"
    weights[conv1] = weights[conv1].flip(1)
    R, S = len(model.config.anchor_ratios), len(model.config.anchor_scales)
    for head, V in (("class_head", model.num_classes), ("box_head", 4)):
        for name in (f"{head}.output.weight", f"{head}.output.bias"):
            value_SRV = weights[name].view(S, R, V, *weights[name].shape[1:])
            weights[name] = value_SRV.transpose(0, 1).reshape(weights[name].shape)
    cells = [cell_C4.view(R, S, 4).transpose(0, 1).reshape(-1, 4) for cell_C4 in model.anchors.cells]
    faults = [
        f"{name}: differs from the anchors of sizes {model.config.anchor_sizes} and scales {model.config.anchor_scales}"
        for name, cell_C4 in zip(_cell_names(model), cells, strict=True)
        if name in state
        and not (state[name].shape == cell_C4.shape and torch.allclose(state[name], cell_C4, atol=1e-2))
    ]
    _raise_if_any(faults, "the file has other anchors: give anchor_sizes, anchor_scales and anchor_ratios as trained")
