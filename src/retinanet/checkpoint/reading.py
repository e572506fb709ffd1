"""Read checkpoint files as plain dictionaries, without executing code that a pickle may contain."""

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
"""Exceptions that torch.load and zipfile raise for damaged files."""


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler for numpy arrays and plain values, the content of Detectron2's model-zoo files. Refuses all else."""

    ADMITTED: Final = frozenset(
        [("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict"), ("_codecs", "encode")]
        + [("numpy._core.multiarray", name) for name in ("_reconstruct", "scalar")]
        + [("numpy._core.numeric", "_frombuffer")]
    )

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function from `ADMITTED`. Raises `UnpicklingError` for any other."""
        if module.startswith("numpy.core."):  # the module's name before numpy 2
            module = module.replace("numpy.core.", "numpy._core.")
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"expected only arrays and plain values, found {module}.{name}")
        return super().find_class(module, name)


def read_file(path: Path) -> Any:
    """Return the content of a .ckpt, .pth, .pkl or .safetensors file, with tensors on the CPU.

    Raises:
        CheckpointError: the file is missing or damaged, or holds other values than tensors, arrays and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    _refuse_archive_bombs(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".pkl":
            with path.open("rb") as file:
                return _ArrayUnpickler(file, encoding="latin1").load()
        # torchvision's training script stores its arguments, a Namespace, beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (*BROKEN_FILE_ERRORS, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a retinanet checkpoint, with tensors on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged or not a retinanet checkpoint, or holds other values than tensors
            and plain values.
    """
    return validate_checkpoint(read_file(path), path)


def validate_checkpoint(checkpoint: Any, path: Path) -> dict[str, Any]:
    """Return the content of a file if it is a retinanet checkpoint, otherwise raise `CheckpointError`."""
    entry = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(checkpoint, dict) or not isinstance(entry, dict):
        raise CheckpointError(f"{path} is not a retinanet checkpoint: it has no entry {KEY!r}")
    file_format = entry.get("format")
    if not isinstance(file_format, int) or file_format > FORMAT:
        raise CheckpointError(
            f"{path}: expected a checkpoint format up to {FORMAT}, found {shorten(file_format)}: update retinanet"
        )
    return checkpoint


def _refuse_archive_bombs(path: Path) -> None:
    """Raise `CheckpointError` if a ZIP archive unpacks to more than its size. PyTorch writes archives uncompressed."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except BROKEN_FILE_ERRORS as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    if unpacked > (size := path.stat().st_size):
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: expected an uncompressed archive, found {size:,} bytes that "
            f"unpack to {unpacked:,} bytes"
        )
