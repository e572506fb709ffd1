"""RetinaNets of torchvision and Detectron2: their weights, and what they were trained with, in ours.

See `peers` for what a state dict does not contain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from retinanet.checkpoint.loaded_model import KEY, LoadedModel, describe_run
from retinanet.checkpoint.peer_network import WeightsError, build_network, inner_state, read_state
from retinanet.checkpoint.peers import PEERS, Kind, preprocessing
from retinanet.checkpoint.reading import read_file
from retinanet.config import (
    ConvertWeightsConfig,
    ModelConfig,
    TrainConfig,
    resolve,
    to_dict,
)
from retinanet.errors import UserError
from retinanet.files import atomic_path
from retinanet.model import RetinaNet

__all__ = ["WeightsError", "convert_weights", "from_detectron2", "from_torchvision", "import_model", "kind_of"]


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
    return build_network(read_state(state_dict), "torchvision", frozen_eps, options)


def from_detectron2(checkpoint: Mapping[str, Any], **options: Any) -> RetinaNet:
    """Return the RetinaNet of a Detectron2 checkpoint: the same logits and offsets for RGB images.

    The first convolution takes RGB instead of BGR, the outputs are put into our order of anchors, and the stride is in
    the 1x1 convolutions, as in the zoo's MSRA backbones.

    Args:
        checkpoint: {"model": {name: array or tensor}} as the zoo's files, or the inner dictionary.
        options: fields of `ModelConfig` that neither names nor shapes tell, such as stride_in_1x1.

    Raises:
        WeightsError: with a list of what is unknown, missing or misshapen.
    """
    return build_network(read_state(checkpoint), "detectron2", 0.0, options)


def kind_of(content: Any) -> Kind | None:
    """Return whose RetinaNet a file's content is; None for a checkpoint of ours and for anything else."""
    if not isinstance(content, Mapping) or KEY in content:
        return None
    names = list(inner_state(content))
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
    state = read_state(content)
    model = build_network(state, kind, frozen_eps, {})
    names, category_ids = _classes(kind, model.num_classes, tuple(classes))
    trained_with: dict[str, Any] = dict(PEERS[kind].trained_with)
    if kind == "torchvision" and model.config.head_norm == "group":
        trained_with["box_loss"] = "giou"
    if kind == "detectron2" and {"pixel_mean", "pixel_std"} <= set(state):
        trained_with |= preprocessing(state["pixel_mean"].flatten().tolist(), state["pixel_std"].flatten().tolist())
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
    with atomic_path(config.output) as partial:
        torch.save(checkpoint, partial)
    return saved


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
