"""Devices that compute."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from retinanet.config.validation import check_options


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """The device that runs the network."""

    device: str = "auto"
    """Device: auto, cpu, cuda or mps. An exported model takes the device names of its runtime."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Number format, devices and nodes of a training run."""

    precision: Literal["32", "bf16", "fp16"] = "32"
    """Number format of the network: float32, or mixed precision in bfloat16 or float16. The loss is float32 always."""
    devices: Annotated[int, Ge(0)] = 1
    """How many devices; 0: all there are."""
    nodes: Annotated[int, Gt(0)] = 1
    """How many machines, under SLURM; torchrun says it itself, and how many devices."""
    sync_batchnorm: bool = False
    """With several GPUs: BatchNorm over the batch of all of them, where it is trained (--no-freeze-batchnorm)."""

    def __post_init__(self) -> None:
        check_options(self)
