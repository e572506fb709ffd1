"""Number formats of training, and their names in Lightning and PyTorch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision

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


class BFloat16Precision(MixedPrecision):
    """Mixed precision in bfloat16 that clips the gradients of fused optimisers too.

    Lightning refuses to clip them, because a fused optimiser divides the gradients by the scale of a gradient scaler
    itself. bfloat16 has no gradient scaler.

    Args:
        device: type of the device: cpu, cuda or mps.
    """

    def __init__(self, device: str) -> None:
        super().__init__("bf16-mixed", device)

    def clip_gradients(self, *args: Any, **options: Any) -> None:
        """Clip the gradients as without mixed precision."""
        Precision.clip_gradients(self, *args, **options)
