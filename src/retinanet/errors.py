"""Errors whose message tells the user what to do, and functions that build such messages."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, Final


class UserError(ValueError):
    """An error that the user can correct. The command line prints its message without a traceback."""


class ConfigError(UserError):
    """An option that does not exist, or a value that it cannot take."""


def did_you_mean(found: object, known: Any) -> str:
    """Return '. Did you mean X?' with the known word nearest to `found`, or an empty text if none is near.

    Words are compared without case: 'COCO' is near 'coco'.
    """
    names = {str(name).casefold(): str(name) for name in known}
    near = difflib.get_close_matches(str(found).casefold(), names, n=1, cutoff=0.5)
    return f". Did you mean {names[near[0]]!r}?" if near else ""


EXTRAS: Final = {
    **dict.fromkeys(("torch", "torchvision", "timm", "lightning", "tensorboard", "safetensors", "filelock"), "train"),
    **dict.fromkeys(("onnx", "onnxscript", "nncf"), "export"),
    "onnxruntime": "onnx",
    "openvino": "openvino",
    **dict.fromkeys(("ray", "pyarrow", "fsspec"), "scale"),
    **dict.fromkeys(("fastapi", "uvicorn", "python_multipart", "prometheus_client"), "serve"),
}
"""Import name of each optional package, and the extra of retinanet that installs the package."""


def explain_missing(error: ModuleNotFoundError, what: str) -> UserError:
    """Return an error that names the extra to install for `what`.

    Raises:
        ModuleNotFoundError: `error` itself, if no extra installs the missing module.
    """
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        raise error
    return UserError(f"{what} needs {module}, which is not installed: pip install 'retinanet[{EXTRAS[module]}]'")


def list_names(names: Sequence[str], most: int = 10) -> str:
    """Return the first names, at most `most`, with commas between them, and the number of further names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
