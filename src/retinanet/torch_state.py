"""Compute independently of the state that other code has given to torch. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@contextmanager
def inference_state(device: torch.device) -> Iterator[None]:
    """Compute on a device without gradients, autocast and default device of the caller, in a `with` block.

    The process's default dtype stays as it is, because other threads share it: code in the block must not use it.
    """
    import torch

    with torch.inference_mode(), _plain_modes(device):
        yield


@contextmanager
def building_state() -> Iterator[None]:
    """Build and train networks in float32 and with gradients, in a `with` block or as a decorator.

    Inside, autocast and inference mode of the caller are off, and torch's default device and default dtype are the CPU
    and float32. Other threads share the default dtype. It changes, and changes back, only if it is not float32.
    """
    import torch

    dtype = torch.get_default_dtype()
    if dtype != torch.float32:
        torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad(), _plain_modes(torch.device("cpu")):
            yield
    finally:
        if dtype != torch.float32:
            torch.set_default_dtype(dtype)


@contextmanager
def _plain_modes(device: torch.device) -> Iterator[None]:
    import torch

    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, enabled=False))
        if torch.get_default_device() != torch.device("cpu"):  # entering a device slows down every call of torch
            stack.enter_context(torch.device("cpu"))
        yield
