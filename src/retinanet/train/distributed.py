"""Connection of the processes of a distributed training run."""

from __future__ import annotations

import atexit
import os

import torch.distributed as dist
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous


class RestartableDDP(DDPStrategy):
    """DDP that torchrun can restart after a process was killed.

    torchrun keeps one key-value store for all attempts, and torch uses the same keys in each attempt. A restarted rank
    can therefore read the address of a dead process, and then fails with "Connection refused". Here the keys of each
    attempt have their own prefix.
    """

    def setup_distributed(self) -> None:
        """Connect the processes: with keys of this attempt under torchrun, with Lightning's own setup elsewhere."""
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
            if self.root_device.type != "cpu":  # NCCL warns at exit unless the group is destroyed
                atexit.register(dist.destroy_process_group)
        super().setup_distributed()
