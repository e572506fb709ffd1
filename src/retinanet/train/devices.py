"""The device of a training run, checked before the data is read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from retinanet.config import torch_device_name
from retinanet.errors import ConfigError
from retinanet.predict.torch_detector import pick_device
from retinanet.train.run_lock import RANKS

if TYPE_CHECKING:
    from retinanet.config import TrainConfig


def device_counts(config: TrainConfig) -> tuple[int, int]:
    """Return the number of devices per node, and of nodes. Under torchrun, its environment sets both numbers."""
    if TorchElasticEnvironment.detect():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        return devices, int(os.environ["WORLD_SIZE"]) // devices
    return config.compute.devices or max(1, torch.cuda.device_count()), config.compute.nodes


def training_device(config: TrainConfig) -> torch.device:
    """Return the device that the options name; with several devices, their type without a number.

    With several devices, the GPUs are only counted: an allocation would take memory of the first GPU in each process.

    Raises:
        ConfigError: the name is unknown, or this machine does not have the device or the number of devices.
    """
    name = config.hardware.device
    if "," in name:
        count = len(name.split(","))
        raise ConfigError(
            f"device must name one device, found {name!r}: give --device cuda --devices {count}, and choose the GPUs "
            f"with the environment variable CUDA_VISIBLE_DEVICES={name}"
        )
    count, nodes = device_counts(config)
    if (count, nodes) == (1, 1):
        _check_single_process()
    known, found = torch_device_name(name), torch.cuda.device_count()
    uses_gpus = known.startswith("cuda") or (known == "auto" and found > 0)
    if (count, nodes) == (1, 1) or not uses_gpus or not found:
        return pick_device(name)
    if ":" in known:
        raise ConfigError(
            f"device {name} names one GPU, but the training run uses {count} devices on {nodes} nodes: give "
            "--device cuda"
        )
    if count > found:
        raise ConfigError(f"devices must be at most {found}, the number of GPUs of this machine, found {count}")
    return torch.device("cuda")


def check_compiler(config: TrainConfig, device: torch.device) -> None:
    """Compile a small function if the options require torch.compile, so that a missing compiler is known at once.

    Raises:
        ConfigError: torch.compile fails.
    """
    if not config.compute.compile:
        return
    try:
        torch.compile(torch.square)(torch.zeros(2, device=device))
    except Exception as error:  # each compiler has errors of its own
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"compile expects a C++ compiler on the CPU and Triton on a GPU; torch.compile failed on "
            f"{device}: {reason}. Install it, or leave out --compile"
        ) from error


def _check_single_process() -> None:
    """Raise `ConfigError` if the environment gives the one process of a training run another rank than 0.

    Such a process would write no progress, no config.yaml and no lock. Launchers of clusters leave these variables, and
    start several processes, each of which would train alone in the same folder.
    """
    name = next((name for name in RANKS if os.environ.get(name)), None)
    if name is not None and os.environ[name] != "0":
        raise ConfigError(
            f"training on one device needs one process of rank 0, but the environment variable {name} is "
            f"{os.environ[name]}. Remove the variable (unset {name}), or start training on several devices with "
            "torchrun or --devices"
        )
