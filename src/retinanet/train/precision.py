"""The number formats of training, as Lightning and as torch name them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch

PRECISIONS: Final = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""Names of `TrainConfig.precision`, and Lightning's for them."""
_DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: str) -> AbstractContextManager[Any]:
    """Return what a training step's forward pass runs in, outside Lightning.

    Args:
        precision: 32, bf16 or fp16.
        device: type of the device: cpu, cuda, mps.
    """
    dtype = _DTYPES.get(precision)
    return nullcontext() if dtype is None else torch.autocast(device, dtype=dtype)
