"""Import of RetinaNets from torchvision and Detectron2: weights, classes and training options.

A state dict does not contain the options of a network's training. The module `peers` defines them for both projects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from retinanet.checkpoint.holders import describe_content
from retinanet.checkpoint.loaded_model import KEY, LoadedModel
from retinanet.checkpoint.peer_network import WeightsError, build_network, find_state, read_state
from retinanet.checkpoint.peers import PEERS, Project, preprocessing
from retinanet.checkpoint.reading import read_any_file
from retinanet.checkpoint.saving import save_model
from retinanet.config import (
    ConvertWeightsConfig,
    ModelConfig,
    TrainConfig,
    resolve,
    to_dict,
)
from retinanet.errors import UserError
from retinanet.model import RetinaNet

__all__ = ["WeightsError", "convert_weights", "find_project", "from_detectron2", "from_torchvision", "import_model"]


def from_torchvision(state_dict: Mapping[str, Any], *, frozen_eps: float = 0.0, **options: Any) -> RetinaNet:
    """Return a RetinaNet with the weights of a torchvision state dict: equal logits, offsets, anchors and gradients.

    The number of classes, the backbone (ResNet-18 to 152), the depth and norm of the heads and the input of P6 are
    inferred from names and shapes. All outputs keep their order: with COCO's 91 outputs, index 0 and ten others are not
    classes. Frozen BatchNorm stays frozen. The tensor names used before torchvision 0.13 are accepted too.

    Args:
        state_dict: state dict, or a dictionary that holds it under any key. Tensor names may have any prefix.
        frozen_eps: eps of frozen BatchNorm: 0 for torchvision's published weights, 1e-5 otherwise.
        options: fields of `ModelConfig` that names and shapes do not determine, such as anchor_sizes.

    Raises:
        WeightsError: unknown tensors, missing tensors or wrong shapes; the message lists them.
    """
    return build_network(read_state(state_dict, "torchvision"), "torchvision", frozen_eps, options)


def from_detectron2(checkpoint: Mapping[str, Any], **options: Any) -> RetinaNet:
    """Return a RetinaNet with the weights of a Detectron2 checkpoint: equal logits and offsets for RGB images.

    The first convolution is converted from BGR to RGB, and the outputs are converted to the anchor order of
    `AnchorGenerator`. The stride is in the 1x1 convolutions, as in the MSRA backbones of Detectron2's model zoo.

    Args:
        checkpoint: {"model": {name: array or tensor}}, the content of a model-zoo file, or the inner dictionary.
        options: fields of `ModelConfig` that names and shapes do not determine, such as stride_in_1x1.

    Raises:
        WeightsError: unknown tensors, missing tensors or wrong shapes; the message lists them.
    """
    return build_network(read_state(checkpoint, "detectron2"), "detectron2", 0.0, options)


def find_project(content: Any) -> Project | None:
    """Return the project whose RetinaNet a file holds, or None for a retinanet checkpoint and any other content."""
    if isinstance(content, Mapping) and KEY in content:
        return None
    return next((project for project in PEERS if find_state(content, project) is not None), None)


def holds_network(content: Any) -> bool:
    """Return whether a file holds a network of a known project, also if it holds several."""
    try:
        return find_project(content) is not None
    except WeightsError:
        return True


def import_model(
    content: Mapping[str, Any], project: Project, *, classes: Sequence[str] = (), frozen_eps: float = 0.0
) -> LoadedModel:
    """Return the network with its classes and the options of its training: preprocessing, post-processing, losses.

    Args:
        content: content of the file.
        project: project that the file comes from.
        classes: class name of each output. Empty: COCO's names if their number fits, otherwise "class 0", "class 1",
            ... For torchvision, the name of output 0, the background, may be left out.
        frozen_eps: eps of frozen BatchNorm, see `from_torchvision`.

    Raises:
        WeightsError: weights that do not fit, see `from_torchvision`, or a wrong number of class names.
    """
    state = read_state(content, project)
    model = build_network(state, project, frozen_eps, {})
    names, category_ids = _classes(project, model.num_classes, tuple(classes))
    trained_with: dict[str, Any] = dict(PEERS[project].trained_with)
    if project == "torchvision" and model.config.head_norm == "group":
        trained_with["box_loss"] = "giou"
    if project == "detectron2" and {"pixel_mean", "pixel_std"} <= set(state):
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
    """Write a file of torchvision or Detectron2 as a retinanet checkpoint, and return the model.

    Raises:
        WeightsError, CheckpointError: a file that cannot be read, or that holds no RetinaNet of these projects.
        UserError: the output file exists and `overwrite` is false.
    """
    if config.output.exists() and not config.existing.overwrite:
        raise UserError(f"{config.output} exists already: give --overwrite to replace it, or another name")
    content = read_any_file(source, is_known=holds_network)
    project = find_project(content)
    if project is None:
        raise WeightsError(
            f"{source} is not a RetinaNet of torchvision or Detectron2: expected tensor names that contain "
            f"{' or '.join(peer.marker for peer in PEERS.values())}, found {describe_content(content)}"
        )
    try:
        saved = import_model(content, project, classes=config.names, frozen_eps=config.frozen_eps)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from error
    save_model(saved, config.output)
    return saved


def _classes(project: Project, K: int, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the class name and the category id of each output. `names`: names that the user chose, or empty."""
    if names:
        if project == "torchvision" and len(names) == K - 1:
            names = ("__background__", *names)
        if len(names) != K:
            raise WeightsError(f"expected names for {K} classes, found {len(names)}: {', '.join(names)}")
        return names, tuple(range(K))
    coco: list[str] = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]  # index = COCO's category id
    if project == "torchvision" and len(coco) == K:
        return tuple(f"N/A {i}" if name == "N/A" else name for i, name in enumerate(coco)), tuple(range(K))
    ids = tuple(i for i, name in enumerate(coco) if name not in {"N/A", "__background__"})
    if project == "detectron2" and len(ids) == K:
        return tuple(coco[i] for i in ids), ids
    return tuple(f"class {k}" for k in range(K)), tuple(range(K))
