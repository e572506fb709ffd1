"""Load a trained network from a retinanet checkpoint or from a RetinaNet file of torchvision or Detectron2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from retinanet.checkpoint.holders import find_states
from retinanet.checkpoint.import_weights import WeightsError, find_project, holds_network, import_model
from retinanet.checkpoint.loaded_model import KEY, LOSS_STATE, CheckpointError, LoadedModel
from retinanet.checkpoint.reading import BROKEN_FILE_ERRORS, OWN_MARKER, read_any_file, validate_checkpoint
from retinanet.checkpoint.tuned_thresholds import TunedThresholds
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
from retinanet.plugins import check_allowed_parts, is_dotted
from retinanet.torch_state import building_state

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@building_state()
def load_checkpoint(path: Path, *, allow: Iterable[str] = ()) -> LoadedModel:
    """Return the trained network of a retinanet checkpoint, or of a RetinaNet file of torchvision or Detectron2.

    Args:
        path: path of the file.
        allow: modules or packages from which the file may name a backbone, besides those of `plugins.is_allowed`.

    Raises:
        CheckpointError, WeightsError: a file of another kind, a damaged file, or a file that names a custom backbone
            that is not allowed or not installed.
    """
    content = _find_checkpoint(read_any_file(path, is_known=holds_network))
    try:
        if (project := find_project(content)) is not None:
            return import_model(content, project)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    checkpoint = validate_checkpoint(content, path)
    classes, category_ids, config = _description(checkpoint[KEY], path)
    try:
        check_allowed_parts(config, ("backbone",), allow)
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
        raise CheckpointError(f"{path}: the weights do not fit the network that the file describes: {error}") from error
    return LoadedModel(
        model=model.eval(),
        classes=classes,
        category_ids=category_ids,
        image_config=image_config,
        postprocess_config=postprocess_config,
        tiling=tiling,
        train_config=config,
        loss_state=_loss_state(checkpoint, path),
        tuned=_tuned(checkpoint[KEY], path, len(classes)),
    )


def _find_checkpoint(content: Any) -> Any:
    """Return the retinanet checkpoint in a file's content: the content itself, or the value of one of its keys."""
    if isinstance(content, dict) and KEY not in content:
        inner = [value for value in content.values() if isinstance(value, dict) and isinstance(value.get(KEY), dict)]
        if len(inner) == 1:
            return inner[0]
    return content


def _network(num_classes: int, config: ModelConfig, state: dict[str, torch.Tensor]) -> RetinaNet:
    """Return the network with the given weights.

    The network is first built on the meta device, without memory, because a damaged or malicious file of a kilobyte
    can describe a network of a terabyte. Its tensors are then replaced by copies of the file's tensors. A network with
    tensors outside its state dict is built again, with memory.
    """
    with torch.device("meta"):
        model = RetinaNet(num_classes=num_classes, config=config)
    dtypes = {name: value.dtype for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)  # checks names and shapes
    copies = {
        name: torch.empty(value.shape, dtype=dtypes[name], device="cpu").copy_(value) for name, value in state.items()
    }
    model.load_state_dict(copies, assign=True)
    if is_dotted(config.backbone) or _has_meta_tensors(model):
        with torch.device("cpu"):
            model = RetinaNet(num_classes=num_classes, config=config)
        model.load_state_dict(state)
    return model


def _has_meta_tensors(model: RetinaNet) -> bool:
    """Return whether a parameter, buffer or attribute of a module is on the meta device, without memory."""
    attributes = (value for module in model.modules() for value in vars(module).values())
    tensors = (*model.parameters(), *model.buffers(), *(v for v in attributes if isinstance(v, torch.Tensor)))
    return any(tensor.is_meta for tensor in tensors)


def _description(entry: dict[str, Any], path: Path) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]:
    """Return the classes, category ids and options that a checkpoint stores. Raises `CheckpointError`."""
    classes, ids, config = entry.get("classes"), entry.get("category_ids"), entry.get("config")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(f"{path}: expected a list of one or more class names, found {shorten(classes)}")
    if not isinstance(ids, list) or len(ids) != len(classes) or not all(type(number) is int for number in ids):
        raise CheckpointError(
            f"{path}: expected an integer category id for each of the {len(classes)} classes, found {shorten(ids)}"
        )
    if not isinstance(config, dict) or not all(isinstance(name, str) for name in config):
        raise CheckpointError(f"{path}: expected a dictionary of training options, found {shorten(config)}")
    return tuple(classes), tuple(ids), config


def _loss_state(checkpoint: dict[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """Return the state of the training loss by name, empty for earlier versions. Raises `CheckpointError`."""
    state = checkpoint.get(LOSS_STATE, {})
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: expected {LOSS_STATE} to be a dictionary of tensors, found {shorten(state)}")
    return state


def _tuned(entry: dict[str, Any], path: Path, classes: int) -> TunedThresholds | None:
    """Return the tuned thresholds of a checkpoint, None without any. Raises `CheckpointError`."""
    if (values := entry.get("tuned")) is None:
        return None
    try:
        return TunedThresholds.from_dict(values, classes=classes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: the tuned thresholds are not valid ({shorten(str(error))}): tune the model again"
        ) from error


def _state(checkpoint: dict[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """Return the network's weights by name. Raises `CheckpointError`."""
    tensors = checkpoint.get("state_dict")
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in tensors.items()
    ):
        raise CheckpointError(
            f"{path}: expected state_dict to be a dictionary of tensors, found {shorten(type(tensors).__name__)}"
        )
    state = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    if OWN_MARKER not in state and len(found := find_states(tensors, OWN_MARKER)) == 1:
        state = dict(found[0].state)  # saved again by a script that wrapped or unwrapped the network
    claimed, size = sum(v.numel() * v.element_size() for v in state.values()), path.stat().st_size
    if claimed > size:  # views with stride 0, which repeat a few numbers
        raise CheckpointError(f"{path}: {size:,} bytes that claim to hold {claimed:,} bytes of weights")
    return state
