"""Checkpoint files as plain dictionaries, read without a pickle that can run code."""

from __future__ import annotations

import argparse
import pickle
import struct
import zipfile
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from retinanet.checkpoint.loaded_model import FORMAT, KEY, CheckpointError
from retinanet.parse import shorten

if TYPE_CHECKING:
    from pathlib import Path


BROKEN_FILE_ERRORS: Final = (
    *(RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile),
    *(TypeError, AttributeError, IndexError, ImportError, AssertionError, OverflowError, MemoryError),
    struct.error,
)
"""What torch.load raises for files that are broken in one way or another."""


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
    except (*BROKEN_FILE_ERRORS, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the dictionary of a checkpoint of ours, tensors on the CPU.

    Raises:
        CheckpointError: missing, damaged, not ours, or holding anything but tensors and plain values.
    """
    return own_checkpoint(read_file(path), path)


def own_checkpoint(checkpoint: Any, path: Path) -> dict[str, Any]:
    """Return the content of a file if it is a checkpoint of ours; else raise `CheckpointError`."""
    about = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(checkpoint, dict) or not isinstance(about, dict):
        raise CheckpointError(f"{path} is no checkpoint of retinanet's: it has no entry {KEY!r}")
    found = about.get("format")
    if not isinstance(found, int) or found > FORMAT:
        raise CheckpointError(
            f"{path} has format {shorten(found)}, this version reads up to {FORMAT}: update retinanet"
        )
    return checkpoint


def _refuse_archive_bombs(path: Path) -> None:
    """Raise where a checkpoint, a ZIP archive, unpacks to more than it is: PyTorch writes it without compression."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except BROKEN_FILE_ERRORS as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    if unpacked > (size := path.stat().st_size):
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: an archive of {size:,} bytes that unpacks to {unpacked:,}"
        )
