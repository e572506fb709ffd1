"""A trained network from a checkpoint of ours, or of torchvision or Detectron2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from retinanet.checkpoint.import_weights import WeightsError, import_model, kind_of
from retinanet.checkpoint.loaded_model import KEY, CheckpointError, LoadedModel
from retinanet.checkpoint.reading import BROKEN_FILE_ERRORS, own_checkpoint, read_file
from retinanet.config import (
    ImageConfig,
    ModelConfig,
    PostprocessConfig,
    TileConfig,
    section_from_dict,
)
from retinanet.errors import ConfigError
from retinanet.model import BackboneError, RetinaNet
from retinanet.parse import shorten
from retinanet.plugins import is_dotted, refuse_foreign_parts

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def load_checkpoint(path: Path, *, allow: Iterable[str] = ()) -> LoadedModel:
    """Return the trained network of a checkpoint of ours, or of a RetinaNet of torchvision or Detectron2.

    Args:
        path: the file.
        allow: modules or packages whose backbone the file may name; see `plugins.allowed` for what else may be named.

    Raises:
        CheckpointError, WeightsError: a file that is none of these, is damaged, or names a backbone from outside that
            is not allowed or not installed.
    """
    content = read_file(path)
    if (kind := kind_of(content)) is not None:
        try:
            return import_model(content, kind)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from error
    checkpoint = own_checkpoint(content, path)
    classes, category_ids, config = _description(checkpoint[KEY], path)
    try:
        refuse_foreign_parts(config, ("backbone",), allow)
        model_config = section_from_dict(ModelConfig, config)
        image_config = section_from_dict(ImageConfig, config)
        postprocess_config = section_from_dict(PostprocessConfig, config)
        tiling = section_from_dict(TileConfig, config)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    state = _state(checkpoint, path)
    try:
        model = _network(len(classes), model_config, state)
    except (BackboneError, *BROKEN_FILE_ERRORS) as error:
        raise CheckpointError(f"{path}: the weights do not fit the network it describes: {error}") from error
    return LoadedModel(
        model=model.eval(),
        classes=classes,
        category_ids=category_ids,
        image_config=image_config,
        postprocess_config=postprocess_config,
        tiling=tiling,
        train_config=config,
    )


def _network(num_classes: int, config: ModelConfig, state: dict[str, torch.Tensor]) -> RetinaNet:
    """Return the network with these weights.

    It is built without memory first: a file may describe a network of a terabyte and hold a kilobyte. Then its tensors
    become copies of the file's. Only a network that also has tensors outside its state dict is built a second time.
    """
    with torch.device("meta"):
        model = RetinaNet(num_classes=num_classes, config=config)
    dtypes = {name: value.dtype for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)  # compares names and shapes
    own = {name: torch.empty(value.shape, dtype=dtypes[name]).copy_(value) for name, value in state.items()}
    model.load_state_dict(own, assign=True)
    if is_dotted(config.backbone) or _has_meta_tensors(model):
        model = RetinaNet(num_classes=num_classes, config=config)
        model.load_state_dict(state)
    return model


def _has_meta_tensors(model: RetinaNet) -> bool:
    """Return whether a parameter, buffer or attribute of a module is a tensor without memory."""
    attributes = (value for module in model.modules() for value in vars(module).values())
    tensors = (*model.parameters(), *model.buffers(), *(v for v in attributes if isinstance(v, torch.Tensor)))
    return any(tensor.is_meta for tensor in tensors)


def _description(about: dict[str, Any], path: Path) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]:
    """Return classes, category ids and options of a checkpoint, each checked to be what it should be."""
    classes, ids, config = about.get("classes"), about.get("category_ids"), about.get("config")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(f"{path}: expected the names of one class or more, found {shorten(classes)}")
    if not isinstance(ids, list) or len(ids) != len(classes) or not all(type(number) is int for number in ids):
        raise CheckpointError(
            f"{path}: expected an integer id for each of its {len(classes)} classes, found {shorten(ids)}"
        )
    if not isinstance(config, dict) or not all(isinstance(name, str) for name in config):
        raise CheckpointError(f"{path}: expected the options of the run, found {shorten(config)}")
    return tuple(classes), tuple(ids), config


def _state(checkpoint: dict[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """Return the network's weights."""
    found = checkpoint.get("state_dict")
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()
    ):
        raise CheckpointError(f"{path}: expected weights by name as state_dict, found {shorten(type(found).__name__)}")
    state = {name.removeprefix("model."): value for name, value in found.items() if name.startswith("model.")}
    claimed, size = sum(v.numel() * v.element_size() for v in state.values()), path.stat().st_size
    if claimed > size:  # views that repeat a few numbers
        raise CheckpointError(f"{path}: {size:,} bytes that claim to hold {claimed:,} bytes of weights")
    return state
