"""RetinaNets of torchvision and Detectron2: their weights, and what they were trained with, in ours.

What a state dict does not say (anchors, preprocessing, post-processing, losses) is what those projects' published
RetinaNets have: torchvision's `retinanet_resnet50_fpn` and `_v2`, Detectron2's `COCO-Detection/retinanet_*`.

Shape suffixes: K classes, R anchor ratios, S anchor scales, V values of an anchor.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from retinanet.checkpoint.loaded_model import KEY, LoadedModel, describe_run
from retinanet.checkpoint.reading import read_file
from retinanet.config import (
    ConvertWeightsConfig,
    ModelConfig,
    TrainConfig,
    resolve,
    to_dict,
)
from retinanet.errors import UserError
from retinanet.model import RetinaNet

Kind = Literal["torchvision", "detectron2"]


Names = Callable[[str, int], Sequence[str]]


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


BGR_MEAN: Final = (103.53, 116.28, 123.675)
"""Detectron2's pixel mean of the MSRA backbones, 0 to 255; their standard deviation is 1."""


class WeightsError(UserError):
    """A state dict of another project that is incomplete, or that of another network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Peer:
    """How one project names, orders and trains what is ours.

    Args:
        names: our name and the layers of a head's step (convolution, norm, ReLU) to their names, the usual one first.
        stage: finds a block of the backbone: stage and number.
        bottleneck: a tensor that only bottleneck ResNets have.
        class_output: the last classification convolution.
        box_output: the last regression convolution.
        hidden: finds the hidden convolutions of the classification head.
        coarse: the convolution of the first level beyond the backbone's.
        trained_with: fields of `TrainConfig`.
    """

    names: Names
    stage: str
    bottleneck: str
    class_output: str
    box_output: str
    hidden: str
    coarse: str
    trained_with: Mapping[str, Any]


def from_torchvision(state_dict: Mapping[str, Any], *, frozen_eps: float = 0.0, **options: Any) -> RetinaNet:
    """Return the RetinaNet of a torchvision state dict: the same logits, offsets, anchors and gradients.

    Number of classes, backbone (ResNet-18 to 152), depth and norm of the heads and what P6 is made of come from names
    and shapes. All outputs stay, in their order: of COCO's 91, 0 and ten more are no class. Frozen BatchNorm stays
    frozen. Files from before torchvision 0.13 have other names for the same and are read as well.

    Args:
        state_dict: or what holds it under "model" or "state_dict"; names may begin with "module." or "model.".
        frozen_eps: of frozen BatchNorm: torchvision sets 0 for its published weights, and 1e-5 otherwise.
        options: fields of `ModelConfig` that neither names nor shapes tell, such as anchor_sizes.

    Raises:
        WeightsError: with a list of what is unknown, missing or misshapen.
    """
    return _build(_state(state_dict), "torchvision", frozen_eps, options)


def from_detectron2(checkpoint: Mapping[str, Any], **options: Any) -> RetinaNet:
    """Return the RetinaNet of a Detectron2 checkpoint: the same logits and offsets for RGB pictures.

    The first convolution takes RGB instead of BGR, the outputs are put into our order of anchors, and the stride is in
    the 1x1 convolutions, as in the zoo's MSRA backbones.

    Args:
        checkpoint: {"model": {name: array or tensor}} as the zoo's files, or the inner dictionary.
        options: fields of `ModelConfig` that neither names nor shapes tell, such as stride_in_1x1.

    Raises:
        WeightsError: with a list of what is unknown, missing or misshapen.
    """
    return _build(_state(checkpoint), "detectron2", 0.0, options)


def kind_of(content: Any) -> Kind | None:
    """Return whose RetinaNet a file's content is; None for a checkpoint of ours and for anything else."""
    if not isinstance(content, Mapping) or KEY in content:
        return None
    names = list(_inner(content))
    if any(name.startswith("backbone.bottom_up.") for name in names):
        return "detectron2"
    return "torchvision" if any(name.startswith("backbone.fpn.inner_blocks.") for name in names) else None


def import_model(
    content: Mapping[str, Any], kind: Kind, *, classes: Sequence[str] = (), frozen_eps: float = 0.0
) -> LoadedModel:
    """Return the network with all that it was trained with: classes, preprocessing, post-processing, losses.

    Args:
        content: of the file.
        kind: whose it is.
        classes: names of the outputs; without them COCO's where their number fits, else "class 0" and so on.
            torchvision's may leave out the background, which is the first output.
        frozen_eps: see `from_torchvision`.

    Raises:
        WeightsError: see `from_torchvision`; or names that do not fit the outputs.
    """
    state = _state(content)
    model = _build(state, kind, frozen_eps, {})
    names, category_ids = _classes(kind, model.num_classes, tuple(classes))
    trained_with: dict[str, Any] = dict(PEERS[kind].trained_with)
    if kind == "torchvision" and model.config.head_norm == "group":
        trained_with["box_loss"] = "giou"
    if kind == "detectron2" and {"pixel_mean", "pixel_std"} <= set(state):
        trained_with |= _preprocessing(state["pixel_mean"].flatten().tolist(), state["pixel_std"].flatten().tolist())
    network = {field.name: getattr(model.config, field.name) for field in dataclasses.fields(ModelConfig)}
    paths = {"train": Path(), "val": Path(), "output": Path()}
    config = resolve(TrainConfig, {**paths, **network, **trained_with})
    return LoadedModel(
        model=model,
        classes=names,
        category_ids=category_ids,
        image_config=config.image,
        postprocess_config=config.postprocess,
        tiling=config.tiling,
        train_config=to_dict(config),
    )


def convert_weights(source: Path, config: ConvertWeightsConfig) -> LoadedModel:
    """Write a file of another project as a checkpoint of ours, and return what is in it.

    Raises:
        WeightsError, CheckpointError: a file that cannot be read, or is no RetinaNet of torchvision or Detectron2.
        UserError: the file to write is there already.
    """
    if config.output.exists() and not config.existing.overwrite:
        raise UserError(f"{config.output} is there already: give --overwrite to replace it, or another name")
    content = read_file(source)
    kind = kind_of(content)
    if kind is None:
        raise WeightsError(
            f"{source} is no RetinaNet of torchvision or Detectron2: no name in it begins with "
            "backbone.fpn.inner_blocks. or backbone.bottom_up."
        )
    try:
        saved = import_model(content, kind, classes=config.names, frozen_eps=config.frozen_eps)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from error
    checkpoint = {
        "state_dict": {f"model.{name}": value for name, value in saved.model.state_dict().items()},
        KEY: describe_run(resolve(TrainConfig, saved.train_config), saved.classes, saved.category_ids),
    }
    config.output.parent.mkdir(parents=True, exist_ok=True)
    partial = config.output.with_name(config.output.name + ".partial")
    torch.save(checkpoint, partial)
    partial.replace(config.output)
    return saved


def _inner(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state dict within a file's content, its names without a wrapper's prefix."""
    for holder in HOLDERS:
        if isinstance(content.get(holder), Mapping):
            return _inner(content[holder])
    state = {str(name): value for name, value in content.items()}
    for prefix in PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            return _inner({name.removeprefix(prefix): value for name, value in state.items()})
    return state


def _state(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a state dict, by name."""
    state: dict[str, Tensor] = {}
    wrong = []
    for name, value in _inner(content).items():
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


def _build(state: dict[str, Tensor], kind: Kind, frozen_eps: float, options: dict[str, Any]) -> RetinaNet:
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


def _network(state: dict[str, Tensor], kind: Kind, peer: _Peer) -> dict[str, Any]:
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


def _fit(state: dict[str, Tensor], model: RetinaNet, peer: _Peer) -> dict[str, Tensor]:
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


def _torchvision_names(ours: str, step: int) -> Sequence[str]:
    part, _, rest = ours.partition(".")
    if part == "backbone":
        return (ours,)
    if part == "fpn":
        which, number, kind = rest.split(".")
        if which == "coarse":
            return (f"backbone.fpn.extra_blocks.p{6 + int(number)}.{kind}",)
        blocks = f"backbone.fpn.{'inner' if which == 'lateral' else 'layer'}_blocks.{number}"
        return (f"{blocks}.0.{kind}", f"{blocks}.{kind}")
    head = "head.classification_head" if part == "class_head" else "head.regression_head"
    if rest.startswith("output."):
        return (f"{head}.{'cls_logits' if part == 'class_head' else 'bbox_reg'}.{rest.removeprefix('output.')}",)
    _, number, kind = rest.split(".")
    names = [f"{head}.conv.{int(number) // step}.{int(number) % step}.{kind}"]
    return (*names, f"{head}.conv.{number}.{kind}") if step == 2 else names


def _detectron2_names(ours: str, step: int) -> Sequence[str]:
    part, _, rest = ours.partition(".")
    if part == "backbone":
        name = rest.removeprefix("body.")
        name = re.sub(r"^layer(\d)", lambda stage: f"res{int(stage[1]) + 1}", name)
        name = re.sub(r"^(conv1|bn1)", r"stem.\1", name)
        name = name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
        return ("backbone.bottom_up." + re.sub(r"\bbn(\d)\.", r"conv\1.norm.", name),)
    if part == "fpn":
        which, number, kind = rest.split(".")
        if which == "coarse":
            return (f"backbone.top_block.p{6 + int(number)}.{kind}",)
        return (f"backbone.fpn_{which}{3 + int(number)}.{kind}",)
    which = "cls" if part == "class_head" else "bbox"
    if rest.startswith("output."):
        return (f"head.{'cls_score' if which == 'cls' else 'bbox_pred'}.{rest.removeprefix('output.')}",)
    return (f"head.{which}_subnet.{rest.removeprefix('hidden.')}",)


def _classes(kind: Kind, K: int, given: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the name and the category id of each output."""
    if given:
        if kind == "torchvision" and len(given) == K - 1:
            given = ("__background__", *given)
        if len(given) != K:
            raise WeightsError(f"expected names for {K} classes, found {len(given)}: {', '.join(given)}")
        return given, tuple(range(K))
    coco: list[str] = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]  # the index is COCO's id
    if kind == "torchvision" and len(coco) == K:
        return tuple(f"N/A {i}" if name == "N/A" else name for i, name in enumerate(coco)), tuple(range(K))
    ids = tuple(i for i, name in enumerate(coco) if name not in {"N/A", "__background__"})
    if kind == "detectron2" and len(ids) == K:
        return tuple(coco[i] for i in ids), ids
    return tuple(f"class {k}" for k in range(K)), tuple(range(K))


def _preprocessing(bgr_mean: Sequence[float], bgr_std: Sequence[float]) -> dict[str, tuple[float, ...]]:
    """Return Detectron2's means and deviations, BGR of 0 to 255, as ours: RGB in [0, 1]."""
    return {
        "image_mean": tuple(value / 255 for value in reversed(bgr_mean)),
        "image_std": tuple(value / 255 for value in reversed(bgr_std)),
    }


_BOTH: Final = {
    "image_size": 800,
    "max_size": 1333,
    "size_divisor": 32,
    "positive_iou": 0.5,
    "negative_iou": 0.4,
    "low_quality_matches": True,
    "loss": "focal",
    "alpha": 0.25,
    "gamma": 2.0,
    "box_loss": "l1",
    "score_threshold": 0.05,
    "nms_threshold": 0.5,
    "candidates_per_level": 1000,
}


PEERS: Final[Mapping[Kind, _Peer]] = {
    "torchvision": _Peer(
        names=_torchvision_names,
        stage=r"backbone\.body\.layer(\d)\.(\d+)\.",
        bottleneck="backbone.body.layer1.0.conv3.weight",
        class_output="head.classification_head.cls_logits.weight",
        box_output="head.regression_head.bbox_reg.weight",
        hidden=r"head\.classification_head\.conv\.\d+(\.0)?\.weight",
        coarse="backbone.fpn.extra_blocks.p6.weight",
        trained_with={**_BOTH, "normaliser": "image", "max_detections": 300},
    ),
    "detectron2": _Peer(
        names=_detectron2_names,
        stage=r"backbone\.bottom_up\.res(\d)\.(\d+)\.",
        bottleneck="backbone.bottom_up.res2.0.conv3.weight",
        class_output="head.cls_score.weight",
        box_output="head.bbox_pred.weight",
        hidden=r"head\.cls_subnet\.\d+\.weight",
        coarse="backbone.top_block.p6.weight",
        trained_with={
            **_BOTH,
            "max_detections": 100,
            "clip_before_nms": False,
            **_preprocessing(BGR_MEAN, (1.0, 1.0, 1.0)),
        },
    ),
}
