"""Data loaders of a training run. They never use the global random state: each sample key carries its own seed."""

from __future__ import annotations

import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from retinanet.config import ImageConfig
from retinanet.data import DetectionDataset, TrainBatchSampler, collate, eval_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retinanet.config import TrainConfig
    from retinanet.data import Batch, DetectionData
    from retinanet.data.user_transform import Transform


def _exit_with_trainer(trainer_pid: int, _worker_id: int) -> None:
    """Start a thread in a loader worker that ends the worker when the training process no longer exists.

    PyTorch's workers only watch their parent process. With a fork server, the default of Python 3.14, the parent is
    the fork server and not the training process.
    """

    def watch() -> None:
        while True:
            time.sleep(5)
            try:
                os.kill(trainer_pid, 0)
            except OSError:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class LazyLoader(DataLoader[Any]):
    """Read nothing before the first batch is requested.

    Lightning creates an iterator during setup, before it restores the epoch of a resumed run. With workers, a plain
    `DataLoader` would then start to read batches of the first epoch.
    """

    def __iter__(self) -> Any:
        """Return an iterator over the epoch to which the sampler is set when the first batch is requested."""
        start = super().__iter__

        def batches() -> Iterator[Any]:
            yield from start()

        return batches()


class DetectionDataModule(L.LightningDataModule):
    """Build the training and validation loaders for the trainer's rank and epoch.

    Args:
        config: options of the training run.
        train_data: training images and annotations, already cut into tiles if `config` requires tiles.
        val_data: validation images and annotations, already cut into tiles if `config` requires tiles.
        transform: the user's transform of each training image.
    """

    def __init__(
        self,
        *,
        config: TrainConfig,
        train_data: DetectionData,
        val_data: DetectionData,
        transform: Transform | None = None,
    ) -> None:
        super().__init__()
        self.transform = transform
        self.config = config
        self.train_data = train_data
        self.val_data = val_data
        self.sampler: TrainBatchSampler | None = None

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training loader, set to the trainer's epoch, which is not the first after a resume."""
        trainer = self._attached()
        image_config = self.config.image
        dataset = DetectionDataset(
            data=self.train_data,
            image_config=image_config,
            augment=self.config.augmentation,
            transform=self.transform,
        )
        self.sampler = TrainBatchSampler(
            widths=[record.width for record in self.train_data.records],
            heights=[record.height for record in self.train_data.records],
            batch_size=self.config.batch.batch_size,
            seed=self.config.random.seed,
            image_size=self.config.image.image_size,
            multi_scale=self.config.augmentation.multi_scale if self.config.augmentation.augment else (),
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        self.sampler.set_epoch(trainer.current_epoch)
        return self._loader(dataset, self.sampler, image_config)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation loader. Each image is read by one rank, once."""
        trainer = self._attached()
        image_config = self.config.image
        dataset = DetectionDataset(data=self.val_data, image_config=image_config, augment=None)
        world = trainer.world_size
        size = min(self.config.batch.batch_size, -(-len(dataset) // world))
        batches = eval_batches(self.val_data, size, rank=trainer.global_rank, world_size=world)
        # Lightning skips the evaluation on a rank without batches, and the other ranks would wait for it forever.
        batches = batches or [[0]]
        return self._loader(dataset, batches, image_config)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Return the batch on a device."""
        return batch.to(device)

    def _attached(self) -> L.Trainer:
        if self.trainer is None:
            raise RuntimeError("the data module has no trainer, which provides rank and epoch: pass it to Trainer.fit")
        return self.trainer

    def _loader(self, dataset: DetectionDataset, batches: Any, image_config: ImageConfig) -> DataLoader[Any]:
        workers = self.config.loading.workers
        return LazyLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=partial(collate, image_config=image_config),
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=partial(_exit_with_trainer, os.getpid()),
            pin_memory=torch.cuda.is_available(),
            # Without its own generator, the loader draws the seed of its workers from the global random state.
            generator=torch.Generator().manual_seed(self.config.random.seed),
        )
