"""Errors whose message the user can act on, and what helps to word them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, Final


class UserError(ValueError):
    """Something that the user can mend: the command line prints its message alone, without a traceback."""


class ConfigError(UserError):
    """An option that does not exist, or a value that it cannot take."""


def did_you_mean(found: object, known: Any) -> str:
    """Return '. Did you mean X?' for the nearest known word, or nothing."""
    near = difflib.get_close_matches(str(found), [str(name) for name in known], n=1, cutoff=0.5)
    return f". Did you mean {near[0]!r}?" if near else ""


EXTRAS: Final = {
    **dict.fromkeys(("torch", "torchvision", "timm", "lightning", "tensorboard", "safetensors"), "train"),
    **dict.fromkeys(("onnx", "onnxscript", "nncf"), "export"),
    "onnxruntime": "onnx",
    "openvino": "openvino",
    **dict.fromkeys(("ray", "pyarrow", "fsspec"), "scale"),
    **dict.fromkeys(("fastapi", "uvicorn", "python_multipart", "prometheus_client"), "serve"),
}
"""Which of retinanet's extras brings a package that not every use of it needs."""


def explain_missing(error: ModuleNotFoundError, what: str) -> UserError:
    """Return what to install for `what`, where the missing module belongs to an extra; else raise the error again."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        raise error
    return UserError(f"{what} needs {module}, which is not installed: pip install 'retinanet[{EXTRAS[module]}]'")


def list_names(names: Sequence[str]) -> str:
    """Return the first ten names with commas between them, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
