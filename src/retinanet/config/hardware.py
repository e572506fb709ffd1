"""Devices that compute."""

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

from annotated_types import Ge, Gt

from retinanet.config.validation import check_options

_GPU: Final = re.compile(r"(?:(?:gpu|cuda)(?::(?P<index>\d+))?|(?P<number>\d+))")


def torch_device_name(name: str) -> str:
    """Return PyTorch's name of a device: cuda for gpu, cuda:1 for 1 and for gpu:1; other names in lower case."""
    text = name.strip().lower()
    gpu = _GPU.fullmatch(text)
    if gpu is None:
        return text
    index = gpu["index"] or gpu["number"]
    return f"cuda:{int(index)}" if index else "cuda"


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """The device that runs the network."""

    PANEL: ClassVar = "Run"

    device: str = "auto"
    """Device that runs the network: auto, cpu, cuda (or gpu), mps, or one GPU by its number, such as cuda:1 or 1. An
    exported model takes the device names of its runtime."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Number format, devices and nodes of a training run."""

    PANEL: ClassVar = "Run"

    precision: Literal["32", "bf16", "fp16"] = "32"
    """Number format of the network in training: float32 (32), or mixed precision in bfloat16 (bf16) or float16 (fp16).
    The loss is always computed in float32."""
    compile: bool = False
    """Compile the network with torch.compile, which takes some minutes at the start of the training. Needs a C++
    compiler on the CPU, and Triton on a GPU."""
    devices: Annotated[int, Ge(0)] = 1
    """Number of devices to train on; 0: all devices of the machine."""
    nodes: Annotated[int, Gt(0)] = 1
    """Number of nodes under SLURM. torchrun sets the number of nodes and devices itself."""
    sync_batchnorm: bool = False
    """With several GPUs: compute the BatchNorm statistics over the batches of all GPUs. Has an effect only with
    `--no-freeze-batchnorm`."""

    def __post_init__(self) -> None:
        check_options(self)
