"""What a trained model's file holds beside the weights, and how it is read: never with a pickle that can run code."""

from __future__ import annotations

import argparse
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from retinanet.config import (
    ImageConfig,
    ModelConfig,
    PostprocessConfig,
    TileConfig,
    TrainConfig,
    UserError,
    section_from_dict,
    to_dict,
)
from retinanet.model import RetinaNet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FORMAT: Final = 1
KEY: Final = "retinanet"


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
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".pkl":
            with path.open("rb") as file:
                return _ArraysOnly(file, encoding="latin1").load()
        # torchvision's training script keeps its arguments beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (
        *(RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError, SafetensorError),
        *(TypeError, AttributeError, IndexError, ImportError),  # of a pickle that is broken
    ) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the dictionary of a checkpoint of ours, tensors on the CPU.

    Raises:
        CheckpointError: missing, damaged, not ours, or holding anything but tensors and plain values.
    """
    return _ours(read_file(path), path)


def _ours(checkpoint: Any, path: Path) -> dict[str, Any]:
    if not isinstance(checkpoint, dict) or KEY not in checkpoint:
        raise CheckpointError(f"{path} is no checkpoint of retinanet's: it has no entry {KEY!r}")
    found = checkpoint[KEY].get("format")
    if not isinstance(found, int) or found > FORMAT:
        raise CheckpointError(f"{path} has format {found}, this version reads up to {FORMAT}: update retinanet")
    return checkpoint


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
    about = checkpoint[KEY]
    config = about["config"]
    model = RetinaNet(num_classes=len(about["classes"]), config=section_from_dict(ModelConfig, config))
    state = {k.removeprefix("model."): v for k, v in checkpoint["state_dict"].items() if k.startswith("model.")}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: the weights do not fit the network it describes: {error}") from error
    return SavedModel(
        model=model.eval(),
        classes=tuple(about["classes"]),
        category_ids=tuple(about["category_ids"]),
        image_config=section_from_dict(ImageConfig, config),
        postprocess_config=section_from_dict(PostprocessConfig, config),
        tiling=section_from_dict(TileConfig, config),
        train_config=config,
    )
