"""Read checkpoint files as plain dictionaries, without executing code that a pickle may contain."""

from __future__ import annotations

import argparse
import pickle
import re
import struct
import zipfile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from retinanet.checkpoint.holders import StoredObject, describe_content, find_states
from retinanet.checkpoint.loaded_model import FORMAT, KEY, CheckpointError
from retinanet.errors import list_names
from retinanet.files import content_of
from retinanet.parse import shorten

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


BROKEN_FILE_ERRORS: Final = (
    *(RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile),
    *(TypeError, AttributeError, IndexError, ImportError, AssertionError, OverflowError, MemoryError),
    struct.error,
)
"""Exceptions that torch.load and zipfile raise for damaged files."""

OWN_MARKER: Final = "class_head.output.weight"
"""Name of a tensor that every retinanet network has."""


def _current_module(module: str) -> str:
    """Return the present name of a module that a pickle names. Before numpy 2, numpy._core was numpy.core."""
    return module.replace("numpy.core.", "numpy._core.") if module.startswith("numpy.core.") else module


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler for numpy arrays and plain values, the content of Detectron2's model-zoo files. Refuses all else."""

    ADMITTED: Final = frozenset(
        [("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict"), ("_codecs", "encode")]
        + [("numpy._core.multiarray", name) for name in ("_reconstruct", "scalar")]
        + [("numpy._core.numeric", "_frombuffer")]
    )

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function from `ADMITTED`. Raises `UnpicklingError` for any other."""
        module = _current_module(module)
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"expected only arrays and plain values, found {module}.{name}")
        return super().find_class(module, name)


def read_file(path: Path) -> Any:
    """Return the content of a .ckpt, .pth, .pkl or .safetensors file, with tensors on the CPU.

    Raises:
        CheckpointError: the file is missing or damaged, or holds other values than tensors, arrays and plain values.
    """
    if path.is_dir():
        inside = list_names(sorted(str(file) for file in path.glob("*.ckpt"))) or "none"
        raise CheckpointError(f"{path}: expected a checkpoint, found a folder. Checkpoints in the folder: {inside}")
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    _refuse_archive_bombs(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".pkl" and not _is_torch_archive(path):
            with path.open("rb") as file:
                return _ArrayUnpickler(file, encoding="latin1").load()
        # torchvision's training script stores its arguments, a Namespace, beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (*BROKEN_FILE_ERRORS, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {_reason(error, path)}") from error


def _reason(error: Exception, path: Path) -> str:
    """Return why a file cannot be read, without PyTorch's advice to run the code in the file."""
    text = str(error)
    if not _is_torch_archive(path) and (found := content_of(path)):
        return f"found {found}"
    if "TorchScript" in text:
        return "expected tensors and plain values, found a TorchScript archive: save model.state_dict() with torch.save"
    if isinstance(error, pickle.UnpicklingError) and (refused := re.search(r"GLOBAL (\S+)", text)):
        return (
            f"expected tensors and plain values, found the object {refused[1]}, whose code could do anything: save "
            "model.state_dict() alone with torch.save"
        )
    if isinstance(error, pickle.UnpicklingError):
        return "found no file of torch.save or safetensors: it is damaged, or of another kind"
    return text


class _InertUnpickler(pickle.Unpickler):
    """Unpickler of tensors, arrays and plain values. A `StoredObject` replaces every other object, so no code runs."""

    ADMITTED: Final = _ArrayUnpickler.ADMITTED | {
        *(("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")),
        *(("torch", "Size"), ("torch", "device")),
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function from `ADMITTED` or a dtype, and a class of stand-ins for any other."""
        module = _current_module(module)
        if (module, name) in self.ADMITTED:
            return super().find_class(module, name)
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        return type("StoredObject", (StoredObject,), {"origin": f"{module}.{name}"})


def read_any_file(path: Path, *, is_known: Callable[[Any], bool]) -> Any:
    """Return the content of a file as `read_file` does, or with a `StoredObject` for each object that is refused there.

    Training scripts store a whole network, or other objects beside the weights: a logger, a path, a NumPy number.

    Args:
        path: path of the file.
        is_known: function that returns whether the content, with its stand-ins, holds a network of another project.

    Raises:
        CheckpointError: the file is missing or damaged, or holds refused objects without a known network.
    """
    try:
        return read_file(path)
    except CheckpointError as error:
        if not isinstance(error.__cause__, pickle.UnpicklingError) or not _is_torch_archive(path):
            raise
        content = _read_inert(path)
        if content is None or not is_known(content):
            raise
        return content


def _read_inert(path: Path) -> Any:
    """Return the content of an archive of torch.save without running code from it, or None if it cannot be read."""
    inert = SimpleNamespace(__name__="pickle", Unpickler=_InertUnpickler, load=None)
    try:
        if "constants.pkl" in torch._C.PyTorchFileReader(str(path)).get_all_records():
            return None  # a TorchScript archive: torch.load would run it
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=inert)
    except BROKEN_FILE_ERRORS:
        return None


def _is_torch_archive(path: Path) -> bool:
    """Return whether torch.load reads a file as a ZIP archive. It would unpack other files in other ways."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


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
        raise CheckpointError(
            f"{path} is not a retinanet checkpoint, nor a RetinaNet of torchvision or Detectron2: it has no entry "
            f"{KEY!r}. Found {describe_content(checkpoint)}{_hint(checkpoint)}"
        )
    file_format = entry.get("format")
    if not isinstance(file_format, int) or file_format > FORMAT:
        raise CheckpointError(
            f"{path}: expected a checkpoint format up to {FORMAT}, found {shorten(file_format)}: update retinanet"
        )
    return checkpoint


def _hint(content: Any) -> str:
    """Return what to do with a file that holds the tensors of our network without their description."""
    if not find_states(content, OWN_MARKER):
        return ""
    return (
        ". Its tensors are those of a retinanet network, without classes and options: give the checkpoint that "
        "training wrote, or load the tensors with retinanet.RetinaNet(...).load_state_dict"
    )


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
