"""Number formats of training, and their names in Lightning and PyTorch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch

PRECISIONS: Final = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""Values of the option `precision` -> Lightning's names."""
_DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: str) -> AbstractContextManager[Any]:
    """Return the context for the forward pass of a training step that runs outside Lightning.

    Args:
        precision: number format: 32, bf16 or fp16.
        device: type of the device: cpu, cuda or mps.
    """
    dtype = _DTYPES.get(precision)
    return nullcontext() if dtype is None else torch.autocast(device, dtype=dtype)
