"""Check of a Triton form on a device: Triton is not installed on every machine, and it fails in many ways."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

log = logging.getLogger(__name__)


def triton_works(operation: str, device: torch.device, check: Callable[[], None]) -> bool:
    """Return whether a Triton form computes a small, known result on a device. A failure is logged as a warning.

    Args:
        operation: name of the operation in the warning.
        device: a CUDA device.
        check: computes the result; raises an error if it is wrong.
    """
    try:
        check()
    except Exception as error:  # noqa: BLE001 - a missing package, compiler or driver and an old GPU raise many types
        log.warning("%s: Triton cannot be used on %s (%s); the slower torch code is used", operation, device, error)
        return False
    return True
