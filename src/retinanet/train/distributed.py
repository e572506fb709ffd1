"""How the processes of a run find each other."""

from __future__ import annotations

import atexit
import os

import torch.distributed as dist
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous


class RestartableDDP(DDPStrategy):
    """DDP whose processes, started anew by torchrun, do not take the addresses of those that died for their own.

    torchrun keeps one store for all attempts, and torch reads and writes it under the same names in each: a rank that
    asks first is told where a dead one listened, and fails with "Connection refused". Each attempt has its own names
    here.
    """

    def setup_distributed(self) -> None:
        """Connect, under torchrun as said above, else as Lightning does."""
        if TorchElasticEnvironment.detect() and not dist.is_initialized():
            self.set_world_ranks()
            rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            store, _, _ = next(rendezvous("env://", rank, world, timeout=self._timeout))
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            dist.init_process_group(
                backend=self.process_group_backend,  # None: NCCL for GPUs, gloo for the CPU
                store=PrefixStore(f"attempt {attempt}", store),
                rank=rank,
                world_size=world,
                timeout=self._timeout,
                device_id=self.root_device if self.root_device.type != "cpu" else None,
            )
            if self.root_device.type != "cpu":  # NCCL complains where nobody does
                atexit.register(dist.destroy_process_group)
        super().setup_distributed()
