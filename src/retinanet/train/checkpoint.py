"""What a trained model's file holds beside the weights, and how it is read: never with a pickle that can run code."""

from __future__ import annotations

import argparse
import pickle
import struct
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from retinanet.config import (
    ConfigError,
    ImageConfig,
    ModelConfig,
    PostprocessConfig,
    TileConfig,
    TrainConfig,
    UserError,
    section_from_dict,
    to_dict,
)
from retinanet.model import BackboneError, RetinaNet
from retinanet.parse import shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FORMAT: Final = 1
KEY: Final = "retinanet"
_BROKEN: Final = (
    *(RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile),
    *(TypeError, AttributeError, IndexError, ImportError, AssertionError, OverflowError, MemoryError),
    struct.error,
)
"""What torch.load raises for files that are broken in one way or another."""


class CheckpointError(UserError):
    """A file that is no checkpoint of ours, is damaged, or was written by a later version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedModel:
    """A trained network with everything that is needed to use it.

    Args:
        model: in eval mode, on the CPU. With a running average of the weights, it is the average.
        classes: name of each class id.
        category_ids: the id of each class in the training data (COCO's have gaps).
        image_config: how pictures become input.
        postprocess_config: how outputs become detections.
        tiling: how pictures are cut.
        train_config: every option of the run, as plain values.
    """

    model: RetinaNet
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_config: ImageConfig
    postprocess_config: PostprocessConfig
    tiling: TileConfig
    train_config: dict[str, Any]


def describe(config: TrainConfig, classes: Sequence[str], category_ids: Sequence[int]) -> dict[str, Any]:
    """Return what goes into a checkpoint under "retinanet": plain values only."""
    from retinanet import __version__

    return {
        "format": FORMAT,
        "version": __version__,
        "classes": list(classes),
        "category_ids": list(category_ids),
        "config": to_dict(config),
    }


class _ArraysOnly(pickle.Unpickler):
    """Reads a pickle of numpy arrays and plain values, such as Detectron2's model zoo has, and refuses all else."""

    ADMITTED: Final = frozenset(
        [("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict"), ("_codecs", "encode")]
        + [("numpy._core.multiarray", name) for name in ("_reconstruct", "scalar")]
        + [("numpy._core.numeric", "_frombuffer")]
    )

    def find_class(self, module: str, name: str) -> Any:
        """Return an admitted class or function."""
        if module.startswith("numpy.core."):  # its name before numpy 2
            module = module.replace("numpy.core.", "numpy._core.")
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, and only arrays and plain values are read")
        return super().find_class(module, name)


def read_file(path: Path) -> Any:
    """Return what a .ckpt, .pth, .pkl or .safetensors file holds, tensors on the CPU.

    Raises:
        CheckpointError: missing, damaged, or holding anything but tensors, arrays and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}")
    _refuse_archive_bombs(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".pkl":
            with path.open("rb") as file:
                return _ArraysOnly(file, encoding="latin1").load()
        # torchvision's training script keeps its arguments beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (*_BROKEN, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the dictionary of a checkpoint of ours, tensors on the CPU.

    Raises:
        CheckpointError: missing, damaged, not ours, or holding anything but tensors and plain values.
    """
    return _ours(read_file(path), path)


def _ours(checkpoint: Any, path: Path) -> dict[str, Any]:
    about = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(checkpoint, dict) or not isinstance(about, dict):
        raise CheckpointError(f"{path} is no checkpoint of retinanet's: it has no entry {KEY!r}")
    found = about.get("format")
    if not isinstance(found, int) or found > FORMAT:
        raise CheckpointError(f"{path} has format {shown(found)}, this version reads up to {FORMAT}: update retinanet")
    return checkpoint


def _refuse_archive_bombs(path: Path) -> None:
    """Raise where a checkpoint, a ZIP archive, unpacks to more than it is: PyTorch writes it without compression."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except _BROKEN as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    if unpacked > (size := path.stat().st_size):
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: an archive of {size:,} bytes that unpacks to {unpacked:,}"
        )


def read_model(path: Path) -> SavedModel:
    """Return the trained network of a checkpoint of ours, or of a RetinaNet of torchvision or Detectron2.

    Raises:
        CheckpointError, WeightsError: a file that is none of these, or is damaged.
    """
    from retinanet.weights import WeightsError, import_model, kind_of

    content = read_file(path)
    if (kind := kind_of(content)) is not None:
        try:
            return import_model(content, kind)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from error
    checkpoint = _ours(content, path)
    classes, category_ids, config = _description(checkpoint[KEY], path)
    try:
        model_config = section_from_dict(ModelConfig, config)
        image_config = section_from_dict(ImageConfig, config)
        postprocess_config = section_from_dict(PostprocessConfig, config)
        tiling = section_from_dict(TileConfig, config)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    state = _state(checkpoint, path)
    try:
        # First without memory: a file may describe a network of a terabyte and hold a kilobyte.
        with torch.device("meta"):
            RetinaNet(num_classes=len(classes), config=model_config).load_state_dict(state, assign=True)
        model = RetinaNet(num_classes=len(classes), config=model_config)
        model.load_state_dict(state)
    except (BackboneError, *_BROKEN) as error:
        raise CheckpointError(f"{path}: the weights do not fit the network it describes: {error}") from error
    return SavedModel(
        model=model.eval(),
        classes=classes,
        category_ids=category_ids,
        image_config=image_config,
        postprocess_config=postprocess_config,
        tiling=tiling,
        train_config=config,
    )


def _description(about: dict[str, Any], path: Path) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]:
    """Return classes, category ids and options of a checkpoint, each checked to be what it should be."""
    classes, ids, config = about.get("classes"), about.get("category_ids"), about.get("config")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(f"{path}: expected the names of one class or more, found {shown(classes)}")
    if not isinstance(ids, list) or len(ids) != len(classes) or not all(type(number) is int for number in ids):
        raise CheckpointError(
            f"{path}: expected an integer id for each of its {len(classes)} classes, found {shown(ids)}"
        )
    if not isinstance(config, dict) or not all(isinstance(name, str) for name in config):
        raise CheckpointError(f"{path}: expected the options of the run, found {shown(config)}")
    return tuple(classes), tuple(ids), config


def _state(checkpoint: dict[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """Return the network's weights."""
    found = checkpoint.get("state_dict")
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()
    ):
        raise CheckpointError(f"{path}: expected weights by name as state_dict, found {shown(type(found).__name__)}")
    state = {name.removeprefix("model."): value for name, value in found.items() if name.startswith("model.")}
    claimed, size = sum(v.numel() * v.element_size() for v in state.values()), path.stat().st_size
    if claimed > size:  # views that repeat a few numbers
        raise CheckpointError(f"{path}: {size:,} bytes that claim to hold {claimed:,} bytes of weights")
    return state
