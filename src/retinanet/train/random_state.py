"""The random states of Python, numpy and torch, saved and restored."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def state_of_randomness() -> dict[str, Any]:
    """Return the random states that a resumed run must find again: tensors and plain values."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002  # whoever draws from it
    state: dict[str, Any] = {
        "cpu": torch.get_rng_state(),
        "python": [version, list(words), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(position), int(has_gauss), float(cached)],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_randomness(state: dict[str, Any]) -> None:
    """Put back what `state_of_randomness` returned; a different number of CUDA devices keeps their own states."""
    torch.set_rng_state(state["cpu"].cpu())
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    if torch.cuda.is_available() and len(state.get("cuda", ())) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
